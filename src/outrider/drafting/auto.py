"""The draft length that chooses itself: when to decide, and when to learn.

`decision` says what to draft, from what is known; `pricing` makes plans of it; `trials` asks drafters that do
not pay now and then; `learner` learns from what steps took and what stood. All of that takes time between the
target's passes, so a decision stands for some steps, and steps are learnt from together before the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from outrider.drafting.costs import QUICK, TargetCost
from outrider.drafting.decision import Decide, Decision, Estimate, decide
from outrider.drafting.learner import Learner
from outrider.drafting.length import Load, Outcome, Timing
from outrider.drafting.link import Link
from outrider.drafting.plan import Plan
from outrider.drafting.pricing import NOTHING, priced
from outrider.drafting.trials import Trials
from outrider.drafting.workloads import Bounds

if TYPE_CHECKING:
    from outrider.engine.request import Request

OVERHEAD = 0.005
"""The share of the time that deciding may take: a decision stands for as many steps as that asks for."""
LOOK_EVERY = 4
"""One of so many steps without drafts is looked at: they teach little."""
SAVE_EVERY = 60.0  # seconds


class AutoLength:
    """A length policy that drafts what pays.

    trees: whether drafts may have siblings; save: called now and then, since costs are learnt; clock:
    seconds; decide: what to draft, from what is known.
    """

    def __init__(
        self,
        links: Sequence[Link],
        target: TargetCost,
        bounds: Bounds,
        save: Callable[[], None],
        *,
        trees: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        decide: Decide = decide,
    ) -> None:
        self.links = links
        self.target = target
        self.bounds = bounds
        self._save = save
        self._clock = clock
        self._decide = decide
        self._saved = clock()
        self._trials = Trials(len(links))
        self._learner = Learner(links, target, self._trials)
        self._known = Estimate(links, target, bounds, trees)
        self._decision = Decision({}, self._known.rate, 0.0, 0, 0.0, looks=False)
        self._requests: Sequence[Request] = ()
        self._load = Load(0, 0, 0, 0)
        self._plans: dict[Request, Plan] = {}  # of the decision
        self._stands = 0  # steps for which the decision stands, if the same requests run
        self._steps = 0  # since it was made
        self._deciding = 0.0  # seconds that it takes, on average
        self._planning = 0.0  # seconds of this step
        self._decided = 0.0  # seconds of it that went into a decision
        self._thought = 0.0  # seconds of planning drafts and looking at them since the last decision
        self._drafted = 0  # steps with drafts in that time
        self._learning = 0.0  # seconds for each step that was last learnt from
        self._idle = False  # nothing is drafted while the decision stands
        self._drafts = False  # something is drafted in this step
        self._read = [0] * len(links)  # tokens that each drafter has to catch up with in this step
        self._untried = [False] * len(links)
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
            self._planning, self._read, self._drafts = 0.0, [0] * len(self.links), False
            return []
        self._steps += 1
        stands = self._steps < self._stands and requests == self._requests
        if stands and self._idle:
            self._drafts = False
            return [self._nothing] * len(requests)
        self._decided = 0.0
        if not stands:
            self._decide_anew(requests)
            self._decided = self._clock() - began
            self._deciding += QUICK * (self._decided - self._deciding)
        plans = [self._plan(request) for request in requests]
        self._idle = all(plan is self._nothing for plan in plans)
        self._drafts = not self._idle
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
        self._learner.see(self._load, self._planning, self._read, outcomes, timing)
        if self._idle:
            self._trials.plain_step(timing.whole)
        elif not self._steps:
            self._trials.settle(self._decision, outcomes, timing.whole)
        if not self._steps:
            self._stands = max(self._stands, math.ceil(self._deciding / (OVERHEAD * timing.whole)))
        if self._decision.looks:
            self._stands = 0
        ended = self._clock()
        if self._drafts:
            self._thought += self._planning - self._decided + ended - began
            self._drafted += 1
        if ended - self._saved > SAVE_EVERY:
            self._saved = ended
            self._learn()
            self._save()

    def end(self, request: Request) -> None:
        self._learn()
        self._learner.forget(request)
        self._trials.forget(request)
        self._plans.pop(request, None)

    def _learn(self) -> None:
        began = self._clock()
        if steps := self._learner.learn(self._decision, always=self.bounds.least > 0):
            self._learning = (self._clock() - began) / steps

    def _decide_anew(self, requests: Sequence[Request]) -> None:
        """Learn from the steps since the last decision, and make the next."""
        self._learn()
        known = self._known = Estimate(
            self.links,
            self.target,
            self.bounds,
            self._known.trees,
            rate=self._decision.rate,
            thinking=self._thinking(),
        )
        if requests != self._requests:
            self._trials.other_requests()
        self._requests = requests
        self._decision = self._decide(known, requests, self._load)
        self._stands = self._trials.choose(known, self._decision, self._steps)
        self._plans.clear()
        self._steps = 0

    def _thinking(self) -> float:
        """Seconds a request in a step with drafts. Other steps say nothing of it, and deciding is not part
        of it, since that is done for them too."""
        if not self._drafted:
            return self._known.thinking
        taken = self._thought / self._drafted + self._learning
        self._thought, self._drafted = 0.0, 0
        return taken / len(self._requests)

    def _plan(self, request: Request) -> Plan:
        """As it was, while the decision stands; trials are made once."""
        plan = self._plans.get(request)
        if plan is None:
            trials = self._untried if self._steps else self._trials.of(request)
            plan = priced(self._known, self._decision, request, trials, self._nothing)
            if not any(trials):
                self._plans[request] = plan
        return plan
