"""When a head may be trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol


class TrainingTime(Protocol):
    """A rule. `busy` and `idle` are told by the engine's thread, and any thread may ask."""

    def busy(self) -> None:
        """The engine computes something from now on."""

    def idle(self) -> None:
        """It has nothing to compute from now on."""

    def left(self) -> float:
        """Seconds until training may go on, if nothing happens: 0 now, infinite while the engine computes."""


class WhileIdle:
    """After so many seconds in which the engine had nothing to compute."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._since: float | None = clock()

    def busy(self) -> None:
        self._since = None

    def idle(self) -> None:
        if self._since is None:
            self._since = self._clock()

    def left(self) -> float:
        since = self._since
        return math.inf if since is None else max(0.0, since + self._patience - self._clock())


class AllTheTime:
    """On cores of its own."""

    def busy(self) -> None:
        """It makes no difference."""

    def idle(self) -> None:
        """Nor does this."""

    def left(self) -> float:
        return 0.0
