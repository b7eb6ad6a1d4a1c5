"""Drafters in a row: the cheap one is asked first, and the next where it has nothing to offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from outrider.drafting.base import Draft, Drafter, StateReader
from outrider.drafting.limit import Plan
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


class Chain:
    """The drafters of an engine: none for plain decoding, mostly one.

    A drafter is asked for the requests whose plan gives it a length above zero and that have no draft yet;
    one that is not asked costs nothing. readers: those who read the target's states, drafters or not.
    clock: seconds.
    """

    def __init__(
        self,
        drafters: Sequence[Drafter] = (),
        readers: Sequence[StateReader] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.drafters = tuple(drafters)
        self._clock = clock
        self._readers = tuple(readers)
        both: list[Drafter | StateReader] = [*self.drafters, *self._readers]
        self._all = tuple({id(each): each for each in both}.values())
        self.seconds = [0.0] * len(self.drafters)
        """What each took for the drafts last returned."""

    def draft(self, requests: Sequence[Request], plans: Sequence[Plan]) -> list[Draft]:
        """One draft a request, empty where nobody offers anything."""
        drafts = [Draft()] * len(requests)
        for source, drafter in enumerate(self.drafters):
            asked = [
                i for i, plan in enumerate(plans) if not drafts[i].tokens and plan.limits[source].length > 0
            ]
            began = self._clock()
            if asked:
                offered = drafter.draft(
                    [requests[i] for i in asked], [plans[i].limits[source] for i in asked]
                )
                for i, draft in zip(asked, offered, strict=True):
                    drafts[i] = replace(draft, source=source)
            self.seconds[source] = self._clock() - began
        return drafts

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The verdicts on the drafts last returned; `requests[i].tokens` does not hold them yet."""
        for drafter in self.drafters:
            drafter.observe(requests, verdicts)

    def read(self, request: Request, first: int, states: Tensor) -> None:
        """The states of committed tokens from position `first` on."""
        for reader in self._readers:
            reader.read(request, first, states)

    def end(self, request: Request) -> None:
        """The request finished or was preempted."""
        for each in self._all:
            each.end(request)
