"""One drafter of a chain: what it costs, and what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from outrider.drafting.allot import Position
from outrider.drafting.base import Draft, Drafter
from outrider.drafting.costs import DraftCost
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import Outcome

if TYPE_CHECKING:
    from outrider.engine.request import Request

HORIZON = 64
"""Steps over which the reading that a drafter has to catch up with is written off, or as many as are left."""


@dataclass
class Link:
    """A drafter of the chain, what it costs, and what can be expected of it."""

    drafter: Drafter
    cost: DraftCost
    forecast: Forecast

    def positions(self, request: Request, asked: float) -> Iterator[Position]:
        """What the drafter promises a request, if it is asked with this chance."""
        steps = min(HORIZON, max(1, request.room))
        seconds = self.cost.first + self.cost.catch_up * self.drafter.behind(request) / steps
        before = asked
        for survival, offered in self.forecast.curve(request):
            offered *= asked
            yield Position(offered * survival, offered, seconds * asked + self.cost.each * before)
            before, seconds = offered, 0.0

    def worth(self, request: Request, *, rate: float, row: float, drafting: int) -> float:
        """Seconds that asking the drafter is expected to save, at best, if so many requests draft.

        rate: tokens a second that are had otherwise; row: seconds of one more row.
        """
        fixed = self.cost.fixed / max(1, drafting)
        gains = (
            tokens / rate - rows * row - seconds - fixed
            for tokens, rows, seconds in self.positions(request, 1.0)
        )
        return max(accumulate(gains))

    def learn(
        self, number: int, outcomes: Sequence[Outcome], *, read: int, seconds: float
    ) -> Sequence[Request]:
        """Learn from what the drafter, of this number in the chain, was asked for: how much of it came, how
        much stood, and what it cost. Returns the requests that it was asked for."""
        asked: list[Request] = []
        tokens = depth = 0
        for outcome in outcomes:
            request, draft, accepted = outcome.request, outcome.draft, outcome.verdict.accepted
            length = outcome.plan.limits[number].length
            if not length or (draft.tokens and draft.source < number):
                continue  # not asked
            if draft.source != number:
                draft, accepted = Draft(source=number), 0
            if not draft.tokens and self.drafter.behind(request) >= len(outcome.verdict.tokens):
                continue  # still reading, which says nothing of what it will offer
            asked.append(request)
            tokens += max(1, len(draft.tokens))
            depth = max(depth, 1, len(draft.tokens))
            self.forecast.observe(request, draft, length, accepted)
        if asked:
            self.cost.observe(len(asked), tokens, depth, read, seconds)
            self.forecast.refresh()
        return asked

    def end(self, request: Request) -> None:
        """The request has ended; what it taught about others stays."""
        self.forecast.forget(request)
