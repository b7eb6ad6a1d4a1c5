"""Whether counts agree with a distribution: the check that planted faults must fail."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

Outcome = TypeVar("Outcome", bound=Hashable)

UNLIKELY = 1e-6
"""A p-value below which counts are said to disagree. Seeds are fixed, so no test is ever unlucky."""
SMALLEST_CELL = 5.0


def agrees(counts: Mapping[Outcome, int], expected: Mapping[Outcome, float]) -> bool:
    """Whether `counts` may be draws from the distribution `expected`."""
    return p_value(counts, expected) > UNLIKELY


def p_value(counts: Mapping[Outcome, int], expected: Mapping[Outcome, float]) -> float:
    """Pearson's chi-square test; outcomes too rare for it are counted together.

    The tail is Wilson and Hilferty's (1931): the cube root of chi-square is nearly normal.
    """
    draws = sum(counts.values())
    if any(counts[outcome] and not expected.get(outcome) for outcome in counts):
        return 0.0
    cells: list[tuple[float, int]] = []
    rare_expected, rare_count = 0.0, 0
    for outcome, probability in expected.items():
        count = counts.get(outcome, 0)
        if probability * draws < SMALLEST_CELL:
            rare_expected, rare_count = rare_expected + probability * draws, rare_count + count
        else:
            cells.append((probability * draws, count))
    if rare_expected:
        cells.append((rare_expected, rare_count))
    degrees = len(cells) - 1
    if degrees == 0:
        return 1.0
    statistic = sum((count - mean) ** 2 / mean for mean, count in cells)
    spread = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))
