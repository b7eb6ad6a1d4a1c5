"""When to try a drafter again that did not pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.engine.request import Request

SHARE = 0.005
"""The share of the time that may go into trials that are expected to cost more than they yield."""
FIRST, DEAREST = 3, 4.0
"""Trials for which no time has to be saved up, and steps that each may cost: whether costs that were kept are
still true can only be found out by paying them, and three are believed."""


class Probing:
    """A budget for trials: a share of the time, saved up and spent on those who have waited longest."""

    def __init__(self) -> None:
        self._credit = 0.0  # seconds
        self._spent = 0.0  # of it, for the trials last chosen
        self._steps = 0
        self._tried: dict[Request, int] = {}  # in which step
        self._granted = 0  # trials
        self._asked = 0

    def save_up(self, seconds: float, steps: int = 1) -> None:
        """So many steps pass, each of which takes so long without trials."""
        self._steps += steps
        self._credit += SHARE * seconds * steps

    def grant(self, cost: float, plain: float) -> None:
        """Credit for one of the first trials, which costs so much; a step without takes `plain` seconds."""
        if max(self._granted, self._asked) < FIRST and cost <= DEAREST * plain:
            self._granted += 1
            self._credit = max(self._credit, cost)

    def choose(
        self, requests: Sequence[Request], costs: Sequence[float], *, shared: float, most: float
    ) -> list[Request]:
        """The requests to draft for although it does not pay.

        costs: of each, and `shared` once, in seconds. No more than `most`, or one trial's cost, stays saved.
        """
        cheapest = min(costs) + shared
        self._credit = min(self._credit, max(most, cheapest))
        self._spent = 0.0
        if cheapest > self._credit:
            return []
        self._spent = shared
        chosen = []
        for i in sorted(range(len(requests)), key=lambda i: self._tried.get(requests[i], -1)):
            if self._spent + costs[i] <= self._credit:
                self._spent += costs[i]
                chosen.append(requests[i])
        self._credit -= self._spent
        return chosen

    def settle(self, seconds: float) -> None:
        """What the trials last chosen turned out to cost, in place of what was expected."""
        self._credit += self._spent - seconds
        self._spent = 0.0

    def steps_until(self, cost: float, seconds: float) -> int:
        """The number of steps of so many seconds until there is enough for a trial."""
        return int(max(0.0, cost - self._credit) / (SHARE * seconds))

    def tried(self, request: Request) -> None:
        """The request has a draft in this step."""
        self._tried[request] = self._steps
        self._asked += 1

    def forget(self, request: Request) -> None:
        self._tried.pop(request, None)
