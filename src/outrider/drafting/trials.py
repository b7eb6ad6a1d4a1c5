"""Trials of drafters that do not pay: who is tried in which step, and what that cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from outrider.drafting.costs import OUTLIER, QUICK
from outrider.drafting.decision import Decision, Estimate
from outrider.drafting.length import Outcome
from outrider.drafting.probing import Probing

if TYPE_CHECKING:
    from outrider.engine.request import Request

AT_LEAST = 0.1
"""Share of its cost that a trial counts as a loss, however promising."""
LONGEST_QUIET = 16
"""Steps for which a decision to draft nothing stands, if nothing changes."""


class Trials:
    """A budget for trials of each drafter of a chain, and whom they are for in the step after a decision."""

    def __init__(self, drafters: int) -> None:
        self._probing = [Probing() for _ in range(drafters)]
        self._chosen: Sequence[Collection[Request]] = ((),) * drafters
        self._plain = 0.0  # seconds of a step of the same requests without drafts; 0: not known

    def choose(self, known: Estimate, decision: Decision, steps: int) -> int:
        """Choose for whom each drafter is tried although it does not pay, `steps` after the last choice.
        Returns for how many steps the decision stands."""
        lengths = decision.lengths
        if decision.looks or not lengths:
            self._chosen = ((),) * len(self._probing)
            return 0
        chosen: list[Collection[Request]] = []
        stands, plain = LONGEST_QUIET, decision.plain
        for n, probing in enumerate(self._probing):
            probing.save_up(plain, steps)
            idle = [request for request in lengths if not lengths[request][n]]
            tried: Collection[Request] = ()
            if idle:
                link = known.links[n]
                shared = min(map(link.deeper, idle)) if len(idle) == len(lengths) else 0.0
                losses = [_loss(known, decision, n, request) for request in idle]
                least = min(losses) + shared
                probing.grant(least, plain)
                tried = set(probing.choose(idle, losses, shared=shared, most=plain))
                stands = min(stands, probing.steps_until(least, plain))
            if tried or len(idle) < len(lengths):
                stands = 0
            chosen.append(tried)
        self._chosen = chosen
        return stands

    def of(self, request: Request) -> list[bool]:
        """Whether each drafter is tried for the request."""
        return [request in chosen for chosen in self._chosen]

    def made(self, number: int, requests: Sequence[Request]) -> None:
        """The drafter of this number was asked for these requests."""
        for request in requests:
            self._probing[number].tried(request)

    def plain_step(self, seconds: float) -> None:
        """A step without drafts took so long."""
        known = self._plain or seconds
        self._plain = known + QUICK * (min(seconds, OUTLIER * known) - known)

    def settle(self, decision: Decision, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Charge the trials of a step that took so long with what they cost, where it had nothing else in it:
        so little is hard to foresee."""
        if self._plain and not decision.drafting:
            tried = [probing for probing, chosen in zip(self._probing, self._chosen, strict=True) if chosen]
            gain = sum(outcome.verdict.accepted for outcome in outcomes) / decision.rate
            for probing in tried:
                probing.settle(max(0.0, seconds - self._plain - gain) / len(tried))

    def other_requests(self) -> None:
        """From now on other requests run, and what a step without drafts takes is not known."""
        self._plain = 0.0

    def forget(self, request: Request) -> None:
        """The request has ended."""
        for probing in self._probing:
            probing.forget(request)


def _loss(known: Estimate, decision: Decision, number: int, request: Request) -> float:
    """Seconds that a trial with a drafter is expected to lose, what those behind it would do included."""
    link = known.links[number]
    survival, offered = link.forecast.first(request)
    row = decision.row + known.target.attention(0, len(request.tokens))
    spent = link.each(request) + link.cost.first + link.cost.catch_up * link.drafter.behind(request)
    spent += offered * row
    for behind in range(number + 1, len(known.links)):
        if decision.lengths[request][behind]:
            worth = known.links[behind].worth(
                request, rate=decision.rate, row=row, drafting=decision.drafting
            )
            spent += offered * max(0.0, worth)
            break
    return max(spent - offered * survival / decision.rate, AT_LEAST * spent)
