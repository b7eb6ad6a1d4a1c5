"""What a row of logits becomes: a distribution from which a token is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from outrider.ops.cpu import extension
from outrider.sampling.filters import Filters

NO_TOKEN = -1
"""Chosen from a row from which none can be: one that holds NaN or +inf, or nothing but -inf."""

Gumbel = Callable[[int, int, torch.device], Tensor]
"""(rows, vocab, device) -> standard Gumbel noise [rows, vocab], one row a position."""


class Draw(Protocol):
    """The noise of consecutive positions, as a tensor or as the keys that it is made from.

    ids: int64 [vocab], the tokens whose noise it is; None: all there are.
    """

    @property
    def ids(self) -> Tensor | None: ...

    def __call__(self, rows: int, vocab: int, device: torch.device) -> Tensor:
        """Standard Gumbel noise [rows, vocab]."""

    def keys(self, rows: int) -> list[int]:
        """The key of each position, an unsigned 64-bit number."""


class Distribution(Protocol):
    """The distributions of consecutive positions of one request."""

    def choose(self, draw: Draw) -> list[int]:
        """One token a position, or NO_TOKEN; `draw` makes the noise, if it is needed at all.

        Ties go to the lower token id.
        """

    def probabilities(self) -> Tensor:
        """float64 [rows, vocab]; each row sums to 1, or is NaN where no token can be chosen."""


@dataclass(frozen=True)
class Greedy:
    """Temperature 0: all mass on the largest logit. logits: [rows, vocab]."""

    logits: Tensor

    def choose(self, draw: Gumbel) -> list[int]:
        return _best(self.logits)

    def probabilities(self) -> Tensor:
        largest, best = self.logits.max(dim=-1, keepdim=True)
        certain = torch.zeros_like(self.logits, dtype=torch.float64).scatter_(-1, best, 1.0)
        return certain.masked_fill_(~largest.isfinite(), torch.nan)


@dataclass(frozen=True)
class Categorical:
    """Temperature above 0. scores: [rows, vocab], as `Filters.scores` makes them."""

    scores: Tensor

    def choose(self, draw: Gumbel) -> list[int]:
        noise = draw(len(self.scores), self.scores.shape[1], self.scores.device)
        return _best(self.scores + noise)

    def probabilities(self) -> Tensor:
        return self.scores.double().softmax(dim=-1)


@dataclass(frozen=True)
class NativeGreedy(Greedy):
    """`Greedy` by native code, for float32 logits on the CPU."""

    instruction_set: str

    def choose(self, draw: object) -> list[int]:
        return list(extension.require().largest(self.logits.numpy(), self.instruction_set))


@dataclass(frozen=True)
class NativeCategorical:
    """Filtered logits whose token native code chooses without a sort of the vocabulary.

    logits: float32 [rows, vocab] on the CPU; the noise is that of `Categorical`, computed only for tokens
    that could win.
    """

    logits: Tensor
    filters: Filters
    instruction_set: str

    def choose(self, draw: Draw) -> list[int]:
        keys, ids = draw.keys(len(self.logits)), draw.ids
        native = extension.require()
        columns = None if ids is None else ids.numpy()
        return list(native.choose(self.logits.numpy(), keys, columns, *self._how()))

    def probabilities(self) -> Tensor:
        """Of the very tokens that `choose` chooses from."""
        scores = extension.require().filtered(self.logits.numpy(), *self._how())
        return Categorical(torch.from_numpy(scores)).probabilities()

    def _how(self) -> tuple[float, float, int, float, str]:
        f = self.filters
        return f.temperature, f.min_p, f.top_k, f.top_p, self.instruction_set


def confidences(logits: Tensor) -> list[float]:
    """The probability of the likeliest token of each row [rows, vocab]; 0 where none can be chosen."""
    shares = (logits - logits.amax(dim=-1, keepdim=True)).exp_().sum(dim=-1).reciprocal_()
    likeliest: list[float] = shares.nan_to_num_(0.0).tolist()
    return likeliest


def _best(values: Tensor) -> list[int]:
    """The first of the largest of each row [rows, vocab], or NO_TOKEN."""
    # `max` promises the first of equal values, and NaN if there is any; `argmax` does not.
    largest, best = values.max(dim=-1)
    tokens: list[int] = torch.where(largest.isfinite(), best, NO_TOKEN).tolist()
    return tokens
