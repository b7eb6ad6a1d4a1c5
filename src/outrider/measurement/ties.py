"""Telling a near-tie from a real difference.

Kernels that are not row-invariant round differently for different numbers of rows. Where two tokens score
the same but for that rounding, plain and speculative decoding may choose differently. This module measures
the rounding at one position, instead of assuming it. On an exact backend nobody asks: every difference is a
real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from outrider.engine.engine import Engine
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.params import SamplingParams
from outrider.verification.noise import Noise, Stream

WIDTHS = range(1, 10)  # rows of the last pass: plain decoding, and verification of up to 8 drafted tokens
MARGIN = 4  # how far beyond the measured spread a gap may be rounding: a few passes do not show its extremes


@dataclass(frozen=True)
class Gap:
    """By how much the first token outscored the second, for each number of rows in the last pass."""

    values: tuple[float, ...]

    @property
    def size(self) -> float:
        return abs(median(self.values))

    @property
    def rounding(self) -> float:
        """What the number of rows alone changes."""
        return max(self.values) - min(self.values)

    @property
    def is_rounding(self) -> bool:
        return self.rounding > 0 and self.size <= MARGIN * self.rounding


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """The first position at which two sequences differ, one ending counted, or None."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return position
    return None if len(a) == len(b) else min(len(a), len(b))


def gap_at(
    engine: Engine, prompt: Sequence[int], output: Sequence[int], other: int, params: SamplingParams
) -> Gap:
    """The gap between the last token of `output` and `other` in its place.

    params: those of the run, with temperature and seed; no edits or filters.
    """
    *before, chosen = output
    tokens = [*prompt, *before]
    values = []
    for width in WIDTHS:
        if width <= len(tokens):
            logits = _last_logits(engine.target, tokens, width)
            scores = logits
            if params.temperature > 0:
                noise = Noise(params.seed or 0).gumbel(Stream.TOKEN, len(before), 1, scores.shape[-1])
                scores = (logits - logits.max()) / params.temperature + noise
            values.append(float(scores[0, chosen]) - float(scores[0, other]))
    return Gap(tuple(values))


def _last_logits(target: ModelRunner, tokens: Sequence[int], width: int) -> NDArray[np.float32]:
    """Logits [1, vocab] after `tokens`, of which the last `width` are computed in one pass."""
    table = target.table()
    try:
        start = len(tokens) - width
        while (first := table.filled) < start:  # at once, if no window keeps less than that
            last = min(start, max(first + 1, table.most))
            table.extend(last)
            target.forward([Span(tokens[first:last], first, table.tables, 0, table.states)])
            table.settle(last)
        table.extend(len(tokens))
        return target.forward([Span(tokens[start:], start, table.tables, 1, table.states)])
    finally:
        table.truncate(0)
