"""Changes to one row of logits that depend on the request and on what it has written so far.

Each row of a verification is edited in the context it would have in plain decoding: the committed output
and the draft before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Edit(Protocol):
    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        """Edit `logits` [vocab] in place, for the token that follows `output`."""


@dataclass(frozen=True)
class OnlyTokens:
    """allowed_token_ids. forbidden: bool [vocab]."""

    forbidden: Tensor

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        logits.masked_fill_(self.forbidden, -torch.inf)


class BadWords:
    """bad_words: no token may complete one of these token sequences.

    They are kept by the token before the last, so that a row looks at those alone that may go on from there.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._always = [last for *beginning, last in sequences if not beginning]
        self._after: dict[int, list[tuple[list[int], int]]] = {}
        for *beginning, last in sequences:
            if beginning:
                self._after.setdefault(beginning[-1], []).append((beginning, last))

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        barred = list(self._always)
        for beginning, last in self._after.get(output[-1], ()) if output else ():
            if list(output[-len(beginning) :]) == beginning:
                barred.append(last)
        logits[barred] = -torch.inf


@dataclass(frozen=True)
class NotYet:
    """min_tokens: `tokens`, which would end the output, are barred until it has `length` tokens.

    tokens: int64 [n].
    """

    length: int
    tokens: Tensor

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        if len(output) < self.length:
            logits[self.tokens] = -torch.inf


@dataclass(frozen=True)
class Bias:
    """logit_bias. tokens: int64 [n]; values: float32 [n]."""

    tokens: Tensor
    values: Tensor

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        logits[self.tokens] += self.values


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divide positive and multiply negative logits of tokens seen in prompt or output (Keskar et al., 2019).

    prompt: the distinct tokens of the prompt.
    """

    penalty: float
    prompt: frozenset[int]

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        seen = sorted(self.prompt.union(output))
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / self.penalty, values * self.penalty)


@dataclass(frozen=True)
class OutputPenalty:
    """presence and frequency penalties, as OpenAI defines them, over the output alone."""

    presence: float
    frequency: float

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        counts = Counter(output)
        if counts:
            change = [self.presence + self.frequency * n for n in counts.values()]
            logits[list(counts)] -= torch.tensor(change, device=logits.device)
