"""What a step costs: the target's pass by its rows, a draft by the requests that take part in it.

Seconds throughout. Shapes are measured when an engine is built (`outrider.engine.profile`) and refined by
what every step then takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

QUICK, SLOW = 0.1, 0.03  # how far one step moves the level of all, and the point that it lies at
AT_ONCE = 0.5  # the same, where a draft took far less time than foreseen: no noise makes it quicker
OUTLIER = 1.5  # a step that took this many times longer than foreseen, or shorter, counts as this many


def _clipped(ratio: float) -> float:
    return min(OUTLIER, max(1 / OUTLIER, ratio))


class TargetCost:
    """Seconds of a step without its drafting.

    counts, seconds: a pass of so many rows over empty contexts, ascending, the first count 1. position: of
    each cached position that a pass reads; position_row: of each such position and row that attends to it.
    request: what Python adds for each request.

    Between counts the cost is linear, beyond the last it goes on as between the last two.
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
        self._level = 1.0
        if (
            len(counts) != len(seconds)
            or len(counts) < 2
            or counts[0] != 1
            or list(counts) != sorted({*counts})
        ):
            raise ValueError(f"counts {counts} with {len(seconds)} times: give two or more, ascending from 1")
        if not seconds[0] > 0:
            raise ValueError(f"times {seconds} have to be above 0")

    def one_pass(self, rows: float) -> float:
        """A pass of so many rows over empty contexts."""
        low, high, nearness = self._between(rows)
        return self._level * (self._seconds[low] * (1 - nearness) + self._seconds[high] * nearness)

    def row(self, rows: float) -> float:
        """What one more row costs where there are about so many."""
        fewer, more = max(1.0, rows - 1.0), rows + 3.0
        return (self.one_pass(more) - self.one_pass(fewer)) / (more - fewer)

    def _between(self, rows: float) -> tuple[int, int, float]:
        """The points around, and how near the upper one is: above 1 beyond the last."""
        high = min(max(bisect_right(self._counts, rows), 1), len(self._counts) - 1)
        first, last = self._counts[high - 1], self._counts[high]
        return high - 1, high, (rows - first) / (last - first)

    def attention(self, positions: int, pairs: int) -> float:
        """Of cached positions, each counted once for a request, and of pairs of a row and a position."""
        return self._level * (positions * self.position + pairs * self.position_row)

    def observe(self, rows: int, attention: float, requests: int, passed: float, rest: float) -> None:
        """A step of `rows` rows took `passed` in its pass and `rest` in Python around it."""
        ratio = _clipped(passed / (self.one_pass(rows) + attention))
        level = ratio**QUICK
        self._level *= level
        # What the level does not take, the neighbouring points do, each by its nearness.
        low, high, nearness = self._between(rows)
        nearness = min(1.0, nearness)
        self._seconds[low] *= (ratio / level) ** (SLOW * (1 - nearness))
        self._seconds[high] *= (ratio / level) ** (SLOW * nearness)
        for i in range(len(self._seconds) - 1):  # more rows never cost less
            self._seconds[i + 1] = max(self._seconds[i], self._seconds[i + 1])
        self.request += SLOW * (min(max(0.0, rest) / requests, 5 * self.request + 1e-4) - self.request)

    def as_json(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "counts": [int(count) for count in self._counts],
            "seconds": [self._level * seconds for seconds in self._seconds],
            "position": self.position * self._level,
            "position_row": self.position_row * self._level,
            "request": self.request,
        }


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

    def observe(self, requests: int, tokens: int, depth: int, read: int, seconds: float) -> None:
        """`requests` were asked and drafted `tokens`, `depth` at most, after `read` tokens of catching up."""
        foreseen = self.fixed * depth + self.each * tokens + self.first * requests + self.catch_up * read
        if foreseen > 0:
            ratio = seconds / foreseen
            change = ratio**AT_ONCE if ratio < 1 / OUTLIER else _clipped(ratio) ** QUICK
            self.fixed *= change
            self.each *= change
            self.first *= change
            self.catch_up *= change

    def as_json(self) -> dict[str, float]:
        """The constructor's arguments."""
        return {"fixed": self.fixed, "each": self.each, "first": self.first, "catch_up": self.catch_up}
