"""The draft length that chooses itself: expected tokens over foreseen seconds, for the whole batch.

Every drafted position of every request is worth its chance to be reached and to stand (the product of the
chances up to it), and costs a row of the target's pass and its part of the drafting. Positions are admitted,
the most worth for their cost first, to where expected tokens a second are highest (`allot`): Leviathan et al.
(2023) for one request, the goodput of SmartSpec (Liu et al., 2024) for a batch. What the time of a row would
yield otherwise is its price, at which a drafter that knows how sure it is stops by itself, as AdaEDL does
(Agrawal et al., 2024), with a price instead of a fixed bound. docs/draft-length.md has the formulas.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from outrider.drafting.allot import Base, Position, allot
from outrider.drafting.costs import OUTLIER, QUICK, TargetCost
from outrider.drafting.grammar import forced_budget
from outrider.drafting.length import Load, Outcome, Timing, fixed_plan
from outrider.drafting.link import Link
from outrider.drafting.plan import Plan
from outrider.drafting.probing import Probing
from outrider.drafting.workloads import Bounds
from outrider.ops.budget import Budget, Price

if TYPE_CHECKING:
    from outrider.engine.request import Request

TRIAL_AT_LEAST = 0.1
"""Share of its cost that a trial counts as a loss, however promising."""
OVERHEAD = 0.005
"""Of the time that deciding may take: a decision stands for as many steps as that asks for."""
LONGEST_QUIET = 16
"""Steps for which a decision to draft nothing stands, if nothing changes."""
LOOK_EVERY = 4
"""Steps without drafts of which one is looked at: they teach little."""
SAVE_EVERY = 60.0  # seconds
NOTHING = Budget(0)


@dataclass(frozen=True)
class Decision:
    """What to ask each drafter of the chain for, by request, 0 for nothing; and what rows cost then.

    trials: by drafter, who is asked although it does not pay, once. rate: expected tokens a second; row:
    seconds of one more row; drafting: requests that draft.
    """

    lengths: Mapping[Request, Sequence[int]]
    trials: Sequence[set[Request]]
    rate: float
    row: float
    drafting: int


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


class AutoLength:
    """See the head of the file. trees: whether drafts may have siblings; save: called now and then, since
    costs are learnt; clock: seconds, of the machine if none is given."""

    def __init__(
        self,
        links: Sequence[Link],
        target: TargetCost,
        bounds: Bounds,
        save: Callable[[], None],
        *,
        trees: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.links = links
        self.target = target
        self.bounds = bounds
        self._save = save
        self._trees = trees
        self._clock = clock or time.perf_counter
        self._saved = self._clock()
        self._probing = [Probing() for _ in links]
        self._requests: Sequence[Request] = ()
        self._load = Load(0, 0, 0, 0)
        self._decision = Decision({}, (), 1.0, 0.0, 0)
        self._plans: dict[Request, Plan] = {}  # of the decision
        self._stands = 0  # steps for which the decision stands, if the same requests run
        self._steps = 0  # since it was made
        self._deciding = 0.0  # seconds that it takes, on average
        self._planning = 0.0  # seconds of this step
        self._seen: list[_Step] = []  # steps that nothing was learnt from yet
        self._thought = 0.0  # seconds of planning drafts and learning from them since the last decision
        self._thinking = 0.0  # the same in a step
        self._idle = False  # nothing is drafted in this step
        self._looks = False  # nothing is drafted to see what that takes
        self._plain = 0.0  # seconds of a step of the same requests without drafts; 0: not known
        self._read = [0] * len(links)  # tokens that each drafter has to catch up with in this step
        self._nothing = Plan((NOTHING,) * (len(links) + 1))

    @property
    def longest(self) -> int:
        return self.bounds.most

    @property
    def nothing(self) -> Plan:
        return self._nothing

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        began = self._clock()
        self._load = load
        if not requests:
            self._planning, self._read = 0.0, [0] * len(self.links)
            return []
        self._steps += 1
        stands = self._steps < self._stands and requests == self._requests
        if stands and self._idle:
            return [self._nothing] * len(requests)
        if not stands:
            if requests != self._requests:
                self._plain = 0.0
            self._requests = requests
            self._thinking, self._thought = self._thought / self._steps, 0.0
            self._learn()
            self._decide()
            self._steps = 0
            self._deciding += QUICK * (self._clock() - began - self._deciding)
        plans = [self._plan(request) for request in requests]
        self._idle = all(plan is self._nothing for plan in plans)
        self._read = [
            sum(
                link.drafter.behind(r)
                for r, plan in zip(requests, plans, strict=True)
                if plan.budgets[n].length
            )
            for n, link in enumerate(self.links, start=1)
        ]
        self._planning = self._clock() - began
        return plans

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        if self._idle and self._steps % LOOK_EVERY and not self.target.surprised:
            return
        began = self._clock()
        drafted = [len(outcome.draft.tokens) for outcome in outcomes]
        pairs = sum(n * len(outcome.request.tokens) for n, outcome in zip(drafted, outcomes, strict=True))
        reading = [link.reading(number, outcomes) for number, link in enumerate(self.links, start=1)]
        self._seen.append(
            _Step(self._load, sum(drafted), pairs, self._planning, self._read, reading, outcomes, timing)
        )
        self._settle(outcomes, timing.whole)
        if not self._steps:
            self._stands = max(self._stands, math.ceil(self._deciding / (OVERHEAD * timing.whole)))
        if self._looks:
            self._stands = 0
        ended = self._clock()
        self._thought += 0.0 if self._idle else self._planning + ended - began
        if ended - self._saved > SAVE_EVERY:
            self._saved = ended
            self._learn()
            self._save()

    def _learn(self) -> None:
        """From the steps since the last decision. All at once: the first finds nothing of this in the
        processor's caches, which a pass has filled, and takes several times as long as each of the others."""
        seen, self._seen = self._seen, []
        for step in seen:
            self._learn_from(step)
        if not seen:
            return
        asked = self._decision.lengths.values()
        for number, link in enumerate(self.links):
            link.forecast.refresh()
            if self.bounds.least or not any(lengths[number] for lengths in asked):
                link.tell_if_useless(self.target)

    def _learn_from(self, step: _Step) -> None:
        load, target, timing = step.load, self.target, step.timing
        target.observe(
            load.rows + step.drafted,
            target.attention(load.positions, load.pairs + step.pairs),
            max(1, len(step.outcomes)),
            timing.verified,
            timing.whole - timing.verified - sum(timing.drafted) - step.planning,
            judged=load.rows == len(step.outcomes),
        )
        for number, (link, probing) in enumerate(zip(self.links, self._probing, strict=True)):
            asked = link.learn(
                number + 1,  # the first of a chain is a grammar
                step.outcomes,
                step.reading[number],
                read=step.read[number],
                seconds=timing.drafted[number + 1],
            )
            for request in asked:
                probing.tried(request)

    def end(self, request: Request) -> None:
        self._learn()
        for link, probing in zip(self.links, self._probing, strict=True):
            link.end(request)
            probing.forget(request)
        self._plans.pop(request, None)

    def _plan(self, request: Request) -> Plan:
        """As it was, while the decision stands; trials are made once."""
        plan = self._plans.get(request)
        if plan is None:
            trials = [request in tried and not self._steps for tried in self._decision.trials]
            plan = self._new_plan(request, trials)
            if not any(trials):
                self._plans[request] = plan
        return plan

    def _new_plan(self, request: Request, trials: Sequence[bool]) -> Plan:
        own = request.params.num_speculative_tokens
        if own is not None:
            return fixed_plan(request, own, len(self.links))
        lengths = self._decision.lengths[request]
        forced = forced_budget(request)
        if not any(lengths) and not any(trials) and not forced.length:
            return self._nothing
        weighed = (self._budget(n, request, lengths[n], trials[n]) for n in range(len(self.links)))
        return Plan((forced, *weighed))

    def _budget(self, number: int, request: Request, length: int, trial: bool) -> Budget:
        if not (length or trial):
            return NOTHING
        cost, forecast, decision = self.links[number].cost, self.links[number].forecast, self._decision
        length = max(length, 1)
        if forecast.informed:  # it stops by itself
            length = min(2 * length + 2, self.bounds.most)
        row = decision.row + self.target.attention(0, len(request.tokens))
        price = Price(
            row=decision.rate * row,
            token=decision.rate * (row + cost.each + cost.fixed / max(1, decision.drafting)),
            least=1 if trial else self.bounds.least,
            sure=forecast.sure(request),
            reached=forecast.reached(request),
            second=forecast.second(request) if self._trees else (),
        )
        return Budget(length, price, siblings=length if price.second else 0)

    def _decide(self) -> None:
        """What to draft for these requests, as long as they run and nothing much is learnt."""
        self._plans.clear()
        target, load = self.target, self._load
        own = [request.params.num_speculative_tokens for request in self._requests]
        free = [request for request, length in zip(self._requests, own, strict=True) if length is None]
        others = target.attention(load.positions, load.pairs) + target.request * len(self._requests)
        base = Base(len(self._requests), load.rows + sum(length or 0 for length in own), others)
        used = [self._worth_asking(request, target.row(base.rows), len(free)) for request in free]
        asked = [self._asked(request, use) for request, use in zip(free, used, strict=True)]
        prospects = [self._positions(request, chances) for request, chances in zip(free, asked, strict=True)]
        depths = [
            [link.cost.fixed * chance for link, chance in zip(self.links, chances, strict=True)]
            for chances in asked
        ]
        allotment = allot(prospects, depths, base, target)
        # Costs that only steps with drafts were seen to have may be the drafts' or everybody's: look which.
        decoding = load.rows == len(self._requests)
        self._looks = decoding and not self.bounds.least and target.doubtful(base.rows)
        wanted = [0 if self._looks else max(length, self.bounds.least) for length in allotment.lengths]
        lengths = {
            request: [length * asked for asked in use]
            for request, use, length in zip(free, used, wanted, strict=True)
        }
        row = target.row(allotment.rows)
        self._decision = Decision(lengths, (), allotment.rate, row, sum(length > 0 for length in wanted))
        self._stands = 0
        if self._looks:
            self._decision = replace(self._decision, trials=[set()] * len(self.links))
        elif free:
            trials = self._trials(target.one_pass(base.rows) + others)
            self._decision = replace(self._decision, trials=trials)

    def _asked(self, request: Request, used: Sequence[bool]) -> list[float]:
        """The chance of each drafter to be asked, which it is if those before it are silent."""
        chances, chance = [], 1.0
        for link, use in zip(self.links, used, strict=True):
            chances.append(chance * use)
            if use and len(self.links) > 1:
                chance *= 1 - link.forecast.first(request)[1]
        return chances

    def _positions(self, request: Request, asked: Sequence[float]) -> Iterator[Position]:
        """What the chain promises a request, if its drafters are asked with these chances."""
        attention = self.target.attention(0, len(request.tokens))
        thinking = self._thinking / len(self._requests)
        parts = [
            link.positions(request, chance) for link, chance in zip(self.links, asked, strict=True) if chance
        ]
        for at in zip(*parts, strict=True):
            tokens, rows, seconds = (sum(values) for values in zip(*at, strict=True))
            yield Position(tokens, rows, seconds + rows * attention + thinking)
            thinking = 0.0  # it is much the same for a longer draft

    def _worth_asking(self, request: Request, row: float, drafting: int) -> list[bool]:
        """By drafter, whether to ask it for a request, or rather leave the request to those behind it."""
        used = [True] * len(self.links)
        if len(used) == 1:
            return used
        rest = 0.0  # seconds that those behind save at best, where the current rate is had otherwise
        for n in reversed(range(len(self.links))):
            silent = 1 - self.links[n].forecast.first(request)[1]
            worth = self.links[n].worth(request, rate=self._decision.rate, row=row, drafting=drafting)
            worth += silent * rest
            used[n] = worth >= rest
            rest = max(worth, rest)
        return used

    def _trials(self, plain: float) -> list[set[Request]]:
        """By drafter, for whom it is tried although it does not pay; a plain step takes `plain` seconds.

        Also sets for how long the decision stands.
        """
        lengths = self._decision.lengths
        trials: list[set[Request]] = []
        self._stands = LONGEST_QUIET
        for n, probing in enumerate(self._probing):
            probing.save_up(plain, self._steps)
            idle = [request for request in lengths if not lengths[request][n]]
            chosen: list[Request] = []
            if idle:
                shared = self.links[n].cost.fixed if len(idle) == len(lengths) else 0.0
                losses = [self._loss(n, request) for request in idle]
                probing.grant(min(losses) + shared, plain)
                chosen = probing.choose(idle, losses, shared=shared, most=plain)
                self._stands = min(self._stands, probing.steps_until(min(losses) + shared, plain))
            if chosen or len(idle) < len(lengths):
                self._stands = 0
            trials.append(set(chosen))
        return trials

    def _loss(self, number: int, request: Request) -> float:
        """Seconds that a trial with a drafter is expected to lose, what those behind it would do included."""
        link, decision = self.links[number], self._decision
        survival, offered = link.forecast.first(request)
        row = decision.row + self.target.attention(0, len(request.tokens))
        spent = link.cost.each + link.cost.first + link.cost.catch_up * link.drafter.behind(request)
        spent += offered * row
        for behind in range(number + 1, len(self.links)):
            if decision.lengths[request][behind]:
                worth = self.links[behind].worth(
                    request, rate=decision.rate, row=row, drafting=decision.drafting
                )
                spent += offered * max(0.0, worth)
                break
        return max(spent - offered * survival / decision.rate, TRIAL_AT_LEAST * spent)

    def _settle(self, outcomes: Sequence[Outcome], whole: float) -> None:
        """Charge trials with what they cost, where a step had nothing else in it: so little is hard to
        foresee."""
        if self._idle:
            known = self._plain or whole
            self._plain = known + QUICK * (min(whole, OUTLIER * known) - known)
        elif self._plain and not self._steps and not self._decision.drafting:
            tried = [p for p, chosen in zip(self._probing, self._decision.trials, strict=True) if chosen]
            gain = sum(outcome.verdict.accepted for outcome in outcomes) / self._decision.rate
            for probing in tried:
                probing.settle(max(0.0, whole - self._plain - gain) / len(tried))
