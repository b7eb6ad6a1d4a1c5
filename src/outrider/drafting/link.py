"""One drafter of a chain: what it costs, and what it promises."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from outrider.drafting.allot import Position
from outrider.drafting.base import Draft, Drafter
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.forecast import Forecast
from outrider.drafting.language import ForecastByLanguage
from outrider.drafting.length import Outcome
from outrider.drafting.pace import Paces

if TYPE_CHECKING:
    from outrider.engine.request import Request

logger = logging.getLogger(__name__)

HORIZON = 64
"""Steps over which the reading that a drafter has to catch up with is written off, or as many as are left."""
DRAFTS, REQUESTS = 24, 4
"""Drafts, and requests that had one, before a drafter can be found useless: one request is no measure."""


@dataclass
class Shown:
    """What a drafter has offered so far. stood: drafts whose first token stood."""

    drafts: int = 0
    stood: int = 0
    requests: int = 0
    running: set[Request] = field(default_factory=set)

    def add(self, request: Request, accepted: int) -> None:
        self.drafts += 1
        self.stood += accepted > 0
        self.requests += request not in self.running
        self.running.add(request)


@dataclass
class Link:
    """A drafter of the chain, what it costs, and what can be expected of it. name: as users have it."""

    drafter: Drafter
    cost: DraftCost
    forecast: Forecast | ForecastByLanguage
    name: str = "drafter"
    paces: Paces = field(default_factory=Paces, init=False, repr=False)
    _shown: Shown = field(default_factory=Shown, init=False, repr=False)
    _told: bool = field(default=False, init=False, repr=False)

    def each(self, request: Request) -> float:
        """Seconds of one more token for a request."""
        return self.cost.each * self.paces.of(request)

    def deeper(self, request: Request) -> float:
        """Seconds of drafting one token deeper, whatever the number of requests that do so with it."""
        return self.cost.fixed * self.paces.of(request)

    def positions(self, request: Request, asked: float) -> Iterator[Position]:
        """What the drafter promises a request, if it is asked with this chance."""
        steps = min(HORIZON, max(1, request.room))
        seconds = self.cost.first + self.cost.catch_up * self.drafter.behind(request) / steps
        before, each = asked, self.each(request)
        for survival, offered in self.forecast.curve(request):
            offered *= asked
            yield Position(offered * survival, offered, seconds * asked + each * before)
            before, seconds = offered, 0.0

    def worth(self, request: Request, *, rate: float, row: float, drafting: int) -> float:
        """Seconds that asking the drafter is expected to save, at best, if so many requests draft.

        rate: tokens a second that are had otherwise; row: seconds of one more row.
        """
        fixed = self.deeper(request) / max(1, drafting)
        gains = (
            tokens / rate - rows * row - seconds - fixed
            for tokens, rows, seconds in self.positions(request, 1.0)
        )
        return max(accumulate(gains))

    def reading(self, number: int, outcomes: Sequence[Outcome]) -> Collection[Request]:
        """Who got nothing from the drafter, of this number in the chain, since it has not read enough."""
        return [
            outcome.request
            for outcome in outcomes
            if not (outcome.draft.tokens and outcome.draft.source <= number)
            and self.drafter.behind(outcome.request) >= len(outcome.verdict.tokens)
        ]

    def learn(
        self,
        number: int,
        outcomes: Sequence[Outcome],
        reading: Collection[Request],
        *,
        read: int,
        seconds: float,
    ) -> Sequence[Request]:
        """Learn from what the drafter, of this number in the chain, was asked for: how much of it came, how
        much stood, and what it cost. Returns the requests that it was asked for."""
        asked: list[Request] = []
        tokens = depth = 0
        for outcome in outcomes:
            request, draft, verdict = outcome.request, outcome.draft, outcome.verdict
            length = outcome.plan.budgets[number].length
            own = draft.span(number)
            began = bool(own) and not own.start
            others_began = bool(draft.tokens) and draft.source < number
            if not length or (others_began and not own):
                continue  # not asked
            if request in reading:
                continue  # still reading, which says nothing of what it will offer
            asked.append(request)
            said = draft.steps if began and draft.steps else len(own)
            tokens += max(1, said)
            depth = max(depth, 1, said)
            if own.start:
                self.forecast.observe_behind(request, draft, own, verdict)
            if not others_began:
                self.forecast.observe(request, draft if began else Draft(), length, verdict)
            if began:
                self._shown.add(request, verdict.accepted)
                if draft.steps:
                    self.paces.observe(request, said, len(own))
        if asked:
            self.cost.observe(len(asked), tokens, depth, read, seconds)
        return asked

    def end(self, request: Request) -> None:
        """The request has ended; what it taught about others stays."""
        self.forecast.forget(request)
        self.paces.forget(request)
        self._shown.running.discard(request)

    def tell_if_useless(self, target: TargetCost) -> None:
        """Say once that the drafter does not pay."""
        shown = self._shown
        if self._told or shown.drafts < DRAFTS or shown.requests < REQUESTS or self._pays(target):
            return
        self._told = True
        logger.warning(
            "speculative_model %r does not pay: of %d drafts for %d requests %.0f %% began with the right "
            "token; a draft of one token takes %.2f ms, and a step without drafts %.2f ms",
            self.name,
            shown.drafts,
            shown.requests,
            100 * shown.stood / shown.drafts,
            1e3 * self._foreseen(1),
            1e3 * (target.one_pass(1) + target.request),
        )

    def _pays(self, target: TargetCost) -> bool:
        """Whether what it offers gains anything at some length, for a request that nobody knows yet and that
        runs alone, where drafts pay most: one that is silent, or that rests under load, is not useless."""
        plain, tokens = target.one_pass(1) + target.request, 1.0
        for length, survival in enumerate(self.forecast.shared(), start=1):
            tokens += survival
            if tokens * plain > target.one_pass(1 + length) + target.request + self._foreseen(length):
                return True
        return False

    def _foreseen(self, length: int) -> float:
        """Seconds of a draft for a request that nobody knows yet."""
        cost = self.cost
        return cost.first + length * self.paces.usual * (cost.fixed + cost.each)
