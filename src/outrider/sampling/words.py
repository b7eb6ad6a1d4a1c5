"""What a drafter can say: all of the target's tokens, or some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from outrider.sampling.distribution import NO_TOKEN, Distribution, Draw


class Words(Protocol):
    """Which tokens the logits of a drafter are of."""

    def spread(self, logits: Tensor) -> Tensor:
        """Logits [rows, words] among all tokens, [rows, target's vocab]."""

    def among_all(self, distribution: Distribution) -> Distribution:
        """A distribution over the words as one over all tokens."""


class AllTokens:
    """A drafter with the target's vocabulary."""

    def spread(self, logits: Tensor) -> Tensor:
        return logits

    def among_all(self, distribution: Distribution) -> Distribution:
        return distribution


@dataclass(frozen=True)
class SomeTokens:
    """A drafter with fewer. ids: int64 [words], ascending, so that ties go to the lower id here too."""

    ids: Tensor
    vocab: int

    def spread(self, logits: Tensor) -> Tensor:
        return logits.new_full((len(logits), self.vocab), -torch.inf).index_copy_(1, self.ids, logits)

    def among_all(self, distribution: Distribution) -> Distribution:
        return Among(distribution, self)


@dataclass(frozen=True)
class Among:
    """A distribution over some tokens, chosen from without a look at the others."""

    distribution: Distribution
    words: SomeTokens

    def choose(self, draw: Draw) -> list[int]:
        chosen = self.distribution.choose(SomeNoise(draw, self.words))
        return [NO_TOKEN if place == NO_TOKEN else int(self.words.ids[place]) for place in chosen]

    def probabilities(self) -> Tensor:
        some = self.distribution.probabilities()
        return some.new_zeros((len(some), self.words.vocab)).index_copy_(1, self.words.ids, some)


@dataclass(frozen=True)
class SomeNoise:
    """The noise of some tokens, which is what they have among all. See `Draw`."""

    draw: Draw
    words: SomeTokens

    @property
    def ids(self) -> Tensor:
        return self.words.ids

    def __call__(self, rows: int, vocab: int, device: torch.device) -> Tensor:
        return self.draw(rows, self.words.vocab, device)[:, self.words.ids]

    def keys(self, rows: int) -> list[int]:
        return self.draw.keys(rows)
