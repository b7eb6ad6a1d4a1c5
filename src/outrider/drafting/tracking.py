"""Following quantities that are known roughly at first and change with time.

All is in logarithms: `off` is the logarithm of what was taken over what was foreseen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

QUICK = 0.1
"""How far one observation moves what was foreseen where it may have been an interruption."""
OUTLIER = 1.5
"""An observation that was off by this many times may have been one, and counts as off by no more."""
QUICK_STEPS, SLOW_STEPS = 2, 6
"""Surprises in a row that are believed. A busy machine makes steps slower and never quicker, so that it takes
more slow ones."""
MOST = 16.0
"""Times that something is believed to be off by at once."""
NOISE = 0.1
"""Standard deviation of an observation where nothing has changed."""
PACE = 0.0016
"""Share of the doubt at first that every observation adds, since things change: the last ten count most."""
DOUBT = 0.2
"""By how much something may move for what others showed, before it ought to be looked at itself."""


def within(off: float, times: float) -> float:
    """`off`, or what is nearest to it within so many times longer or shorter."""
    return max(-math.log(times), min(math.log(times), off))


class Surprises:
    """Surprises in a row, all in the same direction."""

    def __init__(self) -> None:
        self._row: list[float] = []

    def add(self, off: float) -> float | None:
        """What to believe, the mildest of enough in a row; None as long as there are not."""
        if self._row and (off > 0) != (self._row[0] > 0):
            self._row.clear()
        self._row.append(within(off, MOST))
        enough = len(self._row) >= (SLOW_STEPS if off > 0 else QUICK_STEPS)
        return min(self._row, key=abs) if enough else None

    def clear(self) -> None:
        """An observation was as foreseen, or is believed."""
        self._row.clear()


class Tracker:
    """A Kalman filter (1960) over quantities of which each observation shows a mix: weights [n].

    doubt: the covariance of their errors at first, [n, n]. An observation moves what it is a mix of, and the
    others as far as their errors go together and nothing has shown them. Surprises are not believed before
    there are enough in a row, at the same place or at any; then all is doubted as much as they are large.
    """

    def __init__(self, doubt: Vector) -> None:
        self._first = doubt
        self._doubt = doubt.copy()
        self._here = [Surprises() for _ in doubt]
        self._anywhere = Surprises()
        self._unseen = np.zeros(len(doubt))  # how far each has moved since it was seen
        self.surprised = False
        """Whether the last observation was a surprise that is not believed."""

    def doubtful(self, mix: Vector) -> bool:
        """Whether a mix has moved so far for what others showed that it ought to be looked at itself."""
        return abs(float(mix @ self._unseen)) > DOUBT

    def observe(self, mix: Vector, off: float) -> Vector:
        """The moves of all quantities for what was seen of a mix; [n]."""
        place = int(mix.argmax())
        self._doubt += PACE * (2 * self._first - self._doubt)
        if self.doubtful(mix):
            self._doubt[place, place] += self._unseen[place] ** 2  # it may share in that or not
        expected = math.sqrt(float(mix @ self._doubt @ mix) + NOISE**2)
        self.surprised = abs(off) > max(math.log(OUTLIER), 2 * expected)
        moves = self._believe(mix, off) if not self.surprised else self._weigh(mix, off, self._here[place])
        self._unseen[place] = 0.0
        return moves

    def nudge(self, mix: Vector, off: float) -> Vector:
        """The same where the observation is not worth much."""
        shared: Vector = self._doubt @ mix
        return self._moved(QUICK * within(off, OUTLIER) * shared / float(mix @ shared))

    def _weigh(self, mix: Vector, off: float, here: Surprises) -> Vector:
        """A surprise, which is believed if others came before it."""
        at_place, anywhere = here.add(off), self._anywhere.add(off)
        believed = at_place or anywhere
        if believed is None:
            return self.nudge(mix, off)
        self._doubt += self._first * (believed**2 / float(mix @ self._first @ mix))
        for surprises in self._here:
            surprises.clear()
        return self._believe(mix, believed)

    def _believe(self, mix: Vector, off: float) -> Vector:
        self.surprised = False
        self._here[int(mix.argmax())].clear()
        self._anywhere.clear()
        shared: Vector = self._doubt @ mix
        expected = float(mix @ shared) + NOISE**2
        self._doubt -= np.outer(shared, shared) / expected
        return self._moved(shared * (off / expected))

    def _moved(self, moves: Vector) -> Vector:
        self._unseen += moves
        return moves
