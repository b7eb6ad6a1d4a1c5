"""How good a draft is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """agreement: how often each token of a draft is the target's likeliest; length: tokens that a greedy
    verification of such drafts yields, the bonus counted."""

    agreement: tuple[float, ...]
    length: float
