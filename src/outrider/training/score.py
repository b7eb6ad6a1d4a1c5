"""How good a draft is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED = 0.7
"""The temperature at which drafts are judged beside greedy ones."""


@dataclass(frozen=True)
class Agreement:
    """by_position: how often each token of a draft is the target's, where those before it are; length: tokens
    that the verification of such drafts yields, the bonus counted."""

    by_position: tuple[float, ...]
    length: float

    @classmethod
    def of(cls, agreement: Tensor) -> Agreement:
        """agreement: [draft length, places], the chances that each token of a draft is the target's."""
        return cls(tuple(agreement.mean(1).tolist()), 1 + float(agreement.cumprod(0).sum(0).mean()))


@dataclass(frozen=True)
class Score:
    """The acceptance at temperature 0, and at `SAMPLED` where drafts are chosen with the target's noise."""

    greedy: Agreement
    sampled: Agreement

    @classmethod
    def of(cls, greedy: Tensor, sampled: Tensor) -> Score:
        """See `Agreement.of`."""
        return cls(Agreement.of(greedy), Agreement.of(sampled))
