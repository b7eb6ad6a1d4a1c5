"""What steps teach of costs and chances, all at once before the next decision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from outrider.drafting.costs import TargetCost
from outrider.drafting.decision import Decision
from outrider.drafting.length import Load, Outcome, Timing
from outrider.drafting.link import Link
from outrider.drafting.trials import Trials

if TYPE_CHECKING:
    from outrider.engine.request import Request


class _Step(NamedTuple):
    """What is learnt from. drafted: rows; pairs: of them and positions; planning: seconds; read: tokens that
    each drafter had to catch up with; reading: by drafter, who was not through with that."""

    load: Load
    drafted: int
    pairs: int
    planning: float
    read: Sequence[int]
    reading: Sequence[Collection[Request]]
    outcomes: Sequence[Outcome]
    timing: Timing


class Learner:
    """Keeps steps until they are learnt from: the first finds nothing of this in the processor's caches,
    which a pass has filled, and takes several times as long as each of the others."""

    def __init__(self, links: Sequence[Link], target: TargetCost, trials: Trials) -> None:
        self._links = links
        self._target = target
        self._trials = trials
        self._seen: list[_Step] = []  # steps that nothing was learnt from yet

    def see(
        self,
        load: Load,
        planning: float,
        read: Sequence[int],
        outcomes: Sequence[Outcome],
        timing: Timing,
    ) -> None:
        """A step, to be learnt from later. planning: seconds; read: tokens that each drafter had to catch up
        with."""
        drafted = [len(outcome.draft.tokens) for outcome in outcomes]
        pairs = sum(n * len(outcome.request.tokens) for n, outcome in zip(drafted, outcomes, strict=True))
        reading = [link.reading(number, outcomes) for number, link in enumerate(self._links, start=1)]
        self._seen.append(_Step(load, sum(drafted), pairs, planning, read, reading, outcomes, timing))

    def learn(self, decision: Decision, *, always: bool) -> int:
        """From the steps since the last time, which this decision was for. always: whether drafts are asked
        for even where they do not pay. Returns how many steps there were."""
        seen, self._seen = self._seen, []
        for step in seen:
            self._learn_from(step)
        if not seen:
            return 0
        asked = decision.lengths.values()
        for number, link in enumerate(self._links):
            link.forecast.refresh()
            if always or not any(lengths[number] for lengths in asked):
                link.tell_if_useless(self._target)
        return len(seen)

    def _learn_from(self, step: _Step) -> None:
        load, target, timing = step.load, self._target, step.timing
        target.observe(
            load.rows + step.drafted,
            target.attention(load.positions, load.pairs + step.pairs),
            max(1, len(step.outcomes)),
            timing.verified,
            timing.whole - timing.verified - sum(timing.drafted) - step.planning,
            judged=load.rows == len(step.outcomes),
        )
        for number, link in enumerate(self._links):
            asked = link.learn(
                number + 1,  # the first of a chain is a grammar
                step.outcomes,
                step.reading[number],
                read=step.read[number],
                seconds=timing.drafted[number + 1],
            )
            self._trials.made(number, asked)

    def forget(self, request: Request) -> None:
        """The request has ended; what it taught about others stays."""
        for link in self._links:
            link.end(request)
