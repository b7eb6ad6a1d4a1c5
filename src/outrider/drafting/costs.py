"""What a step costs: the target's pass by its rows, a draft by the requests that take part in it.

Seconds throughout. Shapes are measured when an engine is built (`outrider.engine.profile`) and refined by
what every step then takes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from outrider.drafting import tracking
from outrider.drafting.tracking import NOISE, Surprises, Tracker, Vector, within

OUTLIER, QUICK = tracking.OUTLIER, tracking.QUICK
SLOW = 0.03  # how far one step moves what Python adds for a request
LEVEL, SHAPE = 0.2, 0.1
"""By how much, as logarithms, all passes together are off at first, and each number of rows by itself."""
REACH = 3.0
"""How far numbers of rows are apart, as a logarithm, before they are hardly off by the same."""
BEYOND = 1.25
"""Times the last count: a pass over more rows is foreseen too vaguely for its time to be worth much."""
TAKEN = 4
"""One of so many steps in a row that take what was foreseen is learnt from: learning takes time too."""
LEAST = 1e-9  # seconds over what was foreseen, or the other way round, so that logarithms are finite


class TargetCost:
    """Seconds of a step without its drafting.

    counts, seconds: a pass of so many rows over empty contexts, ascending, the first count 1. position: of
    each cached position that a pass reads; position_row: of each such position and row that attends to it.
    request: what Python adds for each request.

    Between counts the cost is linear, beyond the last it goes on as between the last two. What passes take
    moves the points of the curve and the cost of attention (`outrider.drafting.tracking`).
    """

    def __init__(
        self,
        counts: Sequence[int],
        seconds: Sequence[float],
        *,
        position: float = 0.0,
        position_row: float = 0.0,
        request: float = 0.0,
    ) -> None:
        self.position = position
        self.position_row = position_row
        self.request = request
        self._counts = [float(count) for count in counts]
        self._seconds = list(accumulate(seconds, max))
        if (
            len(counts) != len(seconds)
            or len(counts) < 2
            or counts[0] != 1
            or list(counts) != sorted({*counts})
        ):
            raise ValueError(f"counts {counts} with {len(seconds)} times: give two or more, ascending from 1")
        if not seconds[0] > 0:
            raise ValueError(f"times {seconds} have to be above 0")
        self._tracker = Tracker(_doubt(self._counts))
        self._as_foreseen = 0  # steps in a row that took what was foreseen

    @property
    def surprised(self) -> bool:
        """Whether the last step took another time than foreseen, and may have been interrupted."""
        return self._tracker.surprised

    def one_pass(self, rows: float) -> float:
        """A pass of so many rows over empty contexts."""
        low, high, nearness = self._between(rows)
        fewer, more = self._seconds[low], self._seconds[high]
        return fewer + (more - fewer) * nearness

    def row(self, rows: float) -> float:
        """What one more row costs where there are about so many."""
        fewer, more = max(1.0, rows - 1.0), rows + 3.0
        return (self.one_pass(more) - self.one_pass(fewer)) / (more - fewer)

    def _between(self, rows: float) -> tuple[int, int, float]:
        """The points around, and how near the upper one is: above 1 beyond the last."""
        high = bisect_right(self._counts, rows, 1, len(self._counts) - 1)
        first, last = self._counts[high - 1], self._counts[high]
        return high - 1, high, (rows - first) / (last - first)

    def attention(self, positions: int, pairs: int) -> float:
        """The seconds of cached positions, each counted once for a request, and of pairs of a row and one."""
        return positions * self.position + pairs * self.position_row

    def doubtful(self, rows: float) -> bool:
        """Whether a pass of so many rows ought to be looked at, since others showed that it may take less or
        more than was thought."""
        return self._tracker.doubtful(self._mix(rows, 1.0))

    def observe(
        self, rows: int, attention: float, requests: int, passed: float, rest: float, *, judged: bool = True
    ) -> None:
        """A step of `rows` rows took `passed` in its pass and `rest` in Python around it.

        judged: whether all rows had logits, as when they were measured; prompts have fewer, and take less.
        """
        self.request += SLOW * (min(max(0.0, rest) / requests, 5 * self.request + 1e-4) - self.request)
        alone = self.one_pass(rows)
        off = math.log(max(LEAST, passed) / (alone + attention))
        self._as_foreseen = self._as_foreseen + 1 if abs(off) < NOISE else 0
        if self._as_foreseen > 1 and self._as_foreseen % TAKEN:
            return
        mix = self._mix(rows, alone / (alone + attention))
        learn = self._tracker.observe if judged and rows <= BEYOND * self._counts[-1] else self._tracker.nudge
        *points, of_attention = np.exp(learn(mix, off)).tolist()
        moved = [seconds * point for seconds, point in zip(self._seconds, points, strict=True)]
        # More rows never cost less, and what was seen is believed: others give way.
        seen = int(mix[:-1].argmax())
        fewer, more = accumulate(moved[seen::-1], min), accumulate(moved[seen:], max)
        self._seconds = [*reversed(list(fewer)), *list(more)[1:]]
        self.position *= of_attention
        self.position_row *= of_attention

    def _mix(self, rows: float, alone: float) -> Vector:
        """What a pass of so many rows shows of the points and, last, of attention. alone: the share of its
        time that it would take without attention."""
        low, high, nearness = self._between(rows)
        mix = np.zeros(len(self._counts) + 1)
        mix[high] = alone * min(1.0, nearness)
        mix[low] = alone - mix[high]
        mix[-1] = 1 - alone
        return mix

    def as_json(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "counts": [int(count) for count in self._counts],
            "seconds": self._seconds,
            "position": self.position,
            "position_row": self.position_row,
            "request": self.request,
        }


def _doubt(counts: Sequence[float]) -> Vector:
    """How far the points of the curve and, last, attention are off at first: numbers of rows that are near
    each other by much the same."""
    places = np.log(np.array(counts))
    doubt = np.full((len(counts) + 1, len(counts) + 1), LEVEL**2)
    doubt[:-1, :-1] += SHAPE**2 * np.exp(-np.abs(places[:, None] - places) / REACH)
    doubt[-1, -1] += SHAPE**2
    return doubt


@dataclass
class DraftCost:
    """Seconds of drafting a token for n requests together: `fixed + each * n`.

    catch_up: of one more token that a drafter has to read before it can draft. first: what asking costs
    besides, for each request.
    """

    fixed: float
    each: float
    first: float = 0.0
    catch_up: float = 0.0
    _surprises: Surprises = field(default_factory=Surprises, init=False, repr=False, compare=False)

    def foreseen(self, requests: int, tokens: int, depth: int, read: int) -> float:
        """Seconds for `requests` that draft `tokens`, `depth` at most, after `read` tokens of catching up."""
        return self.fixed * depth + self.each * tokens + self.first * requests + self.catch_up * read

    def observe(self, requests: int, tokens: int, depth: int, read: int, seconds: float) -> None:
        """What `foreseen` is asked for took so many seconds."""
        foreseen = self.foreseen(requests, tokens, depth, read)
        if foreseen > 0:
            change = math.exp(self._move(math.log(max(LEAST, seconds) / foreseen)))
            self.fixed *= change
            self.each *= change
            self.first *= change
            self.catch_up *= change

    def _move(self, off: float) -> float:
        if abs(off) > math.log(OUTLIER):
            believed = self._surprises.add(off)
            if believed is None:
                return QUICK * within(off, OUTLIER)
            off = believed
        else:
            off *= QUICK
        self._surprises.clear()
        return off

    def as_json(self) -> dict[str, float]:
        """The constructor's arguments."""
        return {"fixed": self.fixed, "each": self.each, "first": self.first, "catch_up": self.catch_up}
