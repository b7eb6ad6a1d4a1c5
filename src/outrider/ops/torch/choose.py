"""Choosing tokens from logits, in plain PyTorch: what native code is tested against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.choice import Add, Allow, Bar, Change, Choice, NoToken, Penalise, Ranked
from outrider.ops.lane import Words
from outrider.ops.noise import folded
from outrider.ops.torch.filters import filtered
from outrider.ops.torch.noise import gumbel

Send = Callable[[NDArray[Any], torch.device], Tensor]


def _sent(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def choose(logits: Tensor, choice: Choice, tokens: Tensor | None = None) -> list[int]:
    """A column a row of the choice, or a `NoToken`. logits: float32 [logit rows, vocab]; tokens: int64
    [vocab], whose noise each column has; None: its own."""
    rows = edited(logits, choice)
    if choice.filters is None:
        return _best(rows, rows)
    offsets = choice.offsets or range(choice.rows)
    keys = [folded((choice.position + offset,), choice.key) for offset in offsets]
    ids = torch.arange(rows.shape[1], device=rows.device) if tokens is None else tokens
    return _best(filtered(rows, choice.filters) + gumbel(keys, ids), rows)


def edited(logits: Tensor, choice: Choice, send: Send = _sent) -> Tensor:
    """The rows of the choice after its edits: [choice.rows, vocab]. send: arrays to the logits' device."""
    rows = logits[choice.skip : choice.skip + choice.rows]
    if not choice.edits:
        return rows
    rows = rows.clone()
    for row, changes in zip(rows, choice.edits, strict=True):
        for change in changes:
            _apply(change, row, send)
    return rows


def probabilities(logits: Tensor, choice: Choice) -> NDArray[np.float64]:
    """What the rows of the choice are chosen from: see `outrider.ops.choice.Rows`."""
    rows = edited(logits, choice)
    if choice.filters is not None:
        return filtered(rows, choice.filters).double().softmax(dim=-1).cpu().numpy()
    largest, best = rows.max(dim=-1, keepdim=True)
    certain = torch.zeros_like(rows, dtype=torch.float64).scatter_(-1, best, 1.0)
    return certain.masked_fill_(~largest.isfinite(), torch.nan).cpu().numpy()


@dataclass(frozen=True)
class TorchRows:
    """See `outrider.ops.choice.Rows`. logits: float32 [logit rows, vocab]."""

    logits: Tensor
    choice: Choice | None

    def ranked(self, row: int, token: int, count: int) -> list[Ranked]:
        logits = self.logits[row]
        logprobs = logits.double().log_softmax(dim=-1)
        first = Ranked(token, float(logprobs[token]), int((logits > logits[token]).sum()) + 1)
        order = logits.sort(descending=True, stable=True).indices[:count].tolist()
        others = [Ranked(t, float(logprobs[t]), rank) for rank, t in enumerate(order, start=1) if t != token]
        return [first, *others]

    def probabilities(self) -> NDArray[np.float64]:
        assert self.choice is not None, "nothing is chosen from these rows"
        return probabilities(self.logits, self.choice)


@dataclass(frozen=True)
class TorchWords:
    """A drafter's words where its logits are. columns: of its logits, that stand for tokens of the target."""

    vocab: int
    ids: Tensor | None
    columns: int

    @classmethod
    def of(cls, words: Words, width: int, device: torch.device) -> TorchWords:
        ids = None if words.ids is None else torch.from_numpy(words.ids).to(device)
        return cls(words.vocab, ids, min(width, words.vocab) if ids is None else len(ids))

    def token(self, column: int) -> int:
        """The target's id; a `NoToken` stays what it is."""
        return column if column < 0 or self.ids is None else int(self.ids[column])

    def spread(self, logits: Tensor) -> Tensor:
        """[rows, columns] among all tokens: [rows, vocab]."""
        ids = torch.arange(self.columns, device=logits.device) if self.ids is None else self.ids
        return logits.new_full((len(logits), self.vocab), -torch.inf).index_copy_(1, ids, logits)

    def choose(self, logits: Tensor, choice: Choice) -> int:
        """A token of the target from one row [1, columns], or a `NoToken`."""
        if choice.edits:
            return choose(self.spread(logits), choice)[0]
        return self.token(choose(logits, choice, self.ids)[0])

    def second(self, logits: Tensor, choice: Choice, first: int) -> int:
        """The next best token behind `first`, from a row [1, columns] that is not edited; -1 if there is
        none."""
        keys = [folded((choice.position,), choice.key)]
        ids = torch.arange(self.columns, device=logits.device) if self.ids is None else self.ids
        scores = logits if choice.filters is None else filtered(logits, choice.filters) + gumbel(keys, ids)
        scores = scores.masked_fill(ids == first, -torch.inf)
        return max(-1, self.token(_best(scores, scores)[0]))


def confidence(logits: Tensor) -> float:
    """The probability of the likeliest token of a row [1, columns]; 0 where none can be chosen."""
    share = (logits - logits.amax(dim=-1, keepdim=True)).exp_().sum(dim=-1).reciprocal_()
    return float(share.nan_to_num_(0.0))


def _apply(change: Change, row: Tensor, send: Send) -> None:
    """Edit a row [vocab] in place."""
    if isinstance(change, Allow):
        row.masked_fill_(send(~change.mask, row.device), -torch.inf)
        return
    ids = send(change.ids, row.device)
    match change:
        case Bar():
            row[ids] = -torch.inf
        case Add():
            row[ids] += send(change.values, row.device)
        case Penalise():
            values = row[ids]
            row[ids] = torch.where(values > 0, values / change.factor, values * change.factor)


def _best(values: Tensor, logits: Tensor) -> list[int]:
    """The first of the largest of each row [rows, vocab], or why there is none: as the logits say."""
    # `max` promises the first of equal values, and NaN if there is any; `argmax` does not.
    best = values.max(dim=-1).indices.tolist()
    largest = logits.max(dim=-1).values.tolist()
    return [
        token if abs(top) < float("inf") else _why_none(top) for token, top in zip(best, largest, strict=True)
    ]


def _why_none(largest: float) -> NoToken:
    if largest != largest:
        return NoToken.NAN
    return NoToken.INFINITE if largest > 0 else NoToken.NOTHING
