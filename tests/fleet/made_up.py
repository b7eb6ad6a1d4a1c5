"""Costs that no machine has, with which queues have formulas."""

from __future__ import annotations

from benchmarks.fleet.costs import Costs
from benchmarks.fleet.measured import Drafting, Steps

STEP = 0.01


def costs(
    *, seqs: int = 8, row: float = 0.0, prompt_rows: int = 64, stood: tuple[float, ...] = (0.7, 0.5, 0.35)
) -> Costs:
    """A step takes STEP, and `row` for each row beyond the first."""
    steps = Steps((1, 101), (STEP, STEP + 100 * row), 0.0, 0.0, 0.0, seqs, prompt_rows, 512)
    return Costs(steps, Drafting("made up", 0.0, 0.0, 0.0, (1.0,) * len(stood), stood))
