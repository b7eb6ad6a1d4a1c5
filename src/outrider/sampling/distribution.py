"""What a row of logits becomes: a distribution from which a token is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from outrider.ops.cpu import extension
from outrider.sampling.filters import Filters

Gumbel = Callable[[int, int, torch.device], Tensor]
"""(rows, vocab, device) -> standard Gumbel noise [rows, vocab], one row a position."""


class Draw(Protocol):
    """The noise of consecutive positions, as a tensor or as the keys that it is made from."""

    def __call__(self, rows: int, vocab: int, device: torch.device) -> Tensor:
        """Standard Gumbel noise [rows, vocab]."""

    def keys(self, rows: int) -> list[int]:
        """The key of each position, an unsigned 64-bit number."""


class Distribution(Protocol):
    """The distributions of consecutive positions of one request."""

    def choose(self, draw: Draw) -> list[int]:
        """One token a position; `draw` makes the noise, if it is needed at all.

        Ties go to the lower token id.
        """

    def probabilities(self) -> Tensor:
        """float64 [rows, vocab]; each row sums to 1."""


@dataclass(frozen=True)
class Greedy:
    """Temperature 0: all mass on the largest logit. logits: [rows, vocab]."""

    logits: Tensor

    def choose(self, draw: Gumbel) -> list[int]:
        # `max` promises the first of equal values; `argmax` does not.
        tokens: list[int] = self.logits.max(dim=-1).indices.tolist()
        return tokens

    def probabilities(self) -> Tensor:
        best = self.logits.max(dim=-1, keepdim=True).indices
        return torch.zeros_like(self.logits, dtype=torch.float64).scatter_(-1, best, 1.0)


@dataclass(frozen=True)
class Categorical:
    """Temperature above 0. scores: [rows, vocab], log-probabilities up to a constant, -inf if filtered."""

    scores: Tensor

    def choose(self, draw: Gumbel) -> list[int]:
        noise = draw(len(self.scores), self.scores.shape[1], self.scores.device)
        tokens: list[int] = (self.scores + noise).max(dim=-1).indices.tolist()
        return tokens

    def probabilities(self) -> Tensor:
        return self.scores.double().softmax(dim=-1)


@dataclass(frozen=True)
class NativeGreedy(Greedy):
    """`Greedy` by native code, for float32 logits on the CPU."""

    def choose(self, draw: object) -> list[int]:
        return list(extension.require().largest(self.logits.numpy()))


@dataclass(frozen=True)
class NativeCategorical:
    """Filtered logits whose token native code chooses without a sort of the vocabulary.

    logits: float32 [rows, vocab] on the CPU; the noise is that of `Categorical`, computed only for tokens
    that could win.
    """

    logits: Tensor
    filters: Filters

    def choose(self, draw: Draw) -> list[int]:
        f = self.filters
        keys = draw.keys(len(self.logits))
        native = extension.require()
        return list(native.choose(self.logits.numpy(), keys, f.temperature, f.min_p, f.top_k, f.top_p))

    def probabilities(self) -> Tensor:
        return Categorical(self.filters.scores(self.logits)).probabilities()
