"""What filters keep, in plain Python and slowly."""

from __future__ import annotations

from collections.abc import Sequence


def min_p(weights: Sequence[int], share: float) -> set[int]:
    return {i for i, weight in enumerate(weights) if weight >= share * max(weights)}


def top_k(values: Sequence[float], k: int) -> set[int]:
    last = sorted(values, reverse=True)[:k][-1]
    return {i for i, value in enumerate(values) if value >= last}


def top_p(weights: Sequence[int], p: float) -> set[int]:
    kept: set[int] = set()
    for i in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        kept.add(i)
        if sum(weights[j] for j in kept) >= p * sum(weights):
            break
    return kept
