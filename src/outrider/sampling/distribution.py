"""What a row of logits becomes: a distribution from which a token is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Gumbel = Callable[[int, int, torch.device], Tensor]
"""(rows, vocab, device) -> standard Gumbel noise [rows, vocab], one row a position."""


class Distribution(Protocol):
    """The distributions of consecutive positions of one request."""

    def choose(self, gumbel: Gumbel) -> list[int]:
        """One token a position; `gumbel` makes the noise, if it is needed at all.

        Ties go to the lower token id.
        """

    def probabilities(self) -> Tensor:
        """float64 [rows, vocab]; each row sums to 1."""


@dataclass(frozen=True)
class Greedy:
    """Temperature 0: all mass on the largest logit. logits: [rows, vocab]."""

    logits: Tensor

    def choose(self, gumbel: Gumbel) -> list[int]:
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

    def choose(self, gumbel: Gumbel) -> list[int]:
        noise = gumbel(len(self.scores), self.scores.shape[1], self.scores.device)
        tokens: list[int] = (self.scores + noise).max(dim=-1).indices.tolist()
        return tokens

    def probabilities(self) -> Tensor:
        return self.scores.double().softmax(dim=-1)
