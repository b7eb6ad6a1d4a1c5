"""What tests put in the place of a machine, a model or a policy, and share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from outrider import LLM, SamplingParams
from outrider.drafting.auto import AutoLength
from outrider.drafting.base import Draft
from outrider.drafting.chain import Chain
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.decision import Decide, decide
from outrider.drafting.forecast import Forecast
from outrider.drafting.language import forecast_of
from outrider.drafting.length import LengthPolicy, Load, Outcome, Timing
from outrider.drafting.link import Link
from outrider.drafting.plan import Plan
from outrider.drafting.workloads import WORKLOADS, Bounds
from outrider.ops.budget import Budget, Meter
from outrider.sampling.sampler import Sampler
from outrider.verification.accept import Verdict
from tests.engine.helpers import drafters_of

if TYPE_CHECKING:
    from outrider.engine.request import Request

BOUND = WORKLOADS[None]
CURVE = ((1, 2, 4, 8, 16, 32, 64, 128), (10.0, 10.2, 10.6, 11.5, 13.5, 20.0, 36.0, 70.0))
"""Milliseconds of a pass: bound by memory at first, then by arithmetic."""


@dataclass
class Clock:
    """Time stands still, unless a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class _Stub:
    """What drafting reads of a request."""

    id: str
    tokens: list[int]
    room: int
    params: SamplingParams = field(default_factory=SamplingParams)
    sampler: Sampler = field(default_factory=lambda: Sampler(None))
    stop_tokens: frozenset[int] = frozenset()
    finish_reason: str | None = None


def stub(
    number: int = 0, *, tokens: int = 4, room: int = 10**6, num_speculative_tokens: int | None = None
) -> Request:
    """A request of so many tokens that may draft so many more, without a model."""
    params = SamplingParams(num_speculative_tokens=num_speculative_tokens)
    return cast("Request", _Stub(str(number), [0] * tokens, room, params))


def stubs(count: int) -> list[Request]:
    return [stub(number) for number in range(count)]


class Memoryless:
    """What a drafter has to be told, for one that keeps nothing."""

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """It knows, or never will."""

    def end(self, request: Request) -> None:
        """It keeps nothing."""

    def behind(self, request: Request) -> int:
        return 0

    def rest(self) -> None:
        """It keeps nothing."""


@dataclass
class Player(Memoryless):
    """A drafter whose tokens are 1 where they stand and 0 where they fall.

    chance: that a request's next token stands; offers: that it has anything to offer; sure: whether it knows
    the chance, which then is one of two, 0.3 below and above.
    """

    cost: DraftCost
    chance: Callable[[Request], float]
    offers: float = 1.0
    sure: bool = False
    unread: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(1))
    asked: list[Request] = field(default_factory=list)
    seconds: float = 0.0  # of the last drafts
    seen: set[Request] = field(default_factory=set)

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        self.asked += requests
        drafts = [self._draft(request, budget) for request, budget in zip(requests, budgets, strict=True)]
        lengths = [max(1, len(draft.tokens)) for draft in drafts]
        read = sum(self.behind(request) for request in requests)
        self.seen.update(requests)
        self.seconds = self.cost.fixed * max(lengths) + self.cost.each * sum(lengths)
        self.seconds += self.cost.first * len(requests) + self.cost.catch_up * read
        return drafts

    def _draft(self, request: Request, budget: Budget) -> Draft:
        if self.draw.random() >= self.offers:
            return Draft()
        if not self.sure:
            chance = self.chance(request)
            return Draft(tuple(int(self.draw.random() < chance) for _ in range(budget.length)))
        tokens: list[int] = []
        confidences: list[float] = []
        meter = Meter(budget)
        while meter.takes(chance := self.chance(request) + self.draw.choice([-0.3, 0.3])):
            tokens.append(int(self.draw.random() < chance))
            confidences.append(chance)
            if not meter.goes_on():
                break
        return Draft(tuple(tokens), confidences=tuple(confidences))

    def behind(self, request: Request) -> int:
        return 0 if request in self.seen else self.unread


def link(player: Player, bounds: Bounds = BOUND, cost: DraftCost | None = None) -> Link:
    """What is known of a player at first; cost: as it is believed to be, its own if none is given."""
    return Link(player, replace(cost or player.cost), forecast_of(player, bounds.most, bounds.acceptance))


def target_cost(curve: tuple[Sequence[int], Sequence[float]] = CURVE) -> TargetCost:
    counts, milliseconds = curve
    return TargetCost(counts, [value / 1000 for value in milliseconds])


class World:
    """Steps of an engine without a model; what they take is what `truth` and the players' costs say.

    believed: what the policy thinks at first that passes cost; links: what it thinks of the players; the
    others as in `AutoLength`, whose clock stands still where none is given: planning takes no time.
    """

    def __init__(
        self,
        players: Sequence[Player],
        bounds: Bounds = BOUND,
        *,
        truth: TargetCost | None = None,
        believed: TargetCost | None = None,
        links: Sequence[Link] | None = None,
        trees: bool = False,
        save: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
        decide: Decide = decide,
    ) -> None:
        self.players = players
        self.truth = truth or target_cost()
        self.policy = AutoLength(
            links or [link(player, bounds) for player in players],
            believed or target_cost(),
            bounds,
            save,
            trees=trees,
            clock=clock or Clock(),
            decide=decide,
        )
        self.chain = Chain(players)
        self.seconds = self.tokens = 0.0
        self.drafts: list[list[Draft]] = []

    def step(self, requests: list[Request]) -> list[Plan]:
        load = Load(len(requests), 0, 0, budget=10**6)
        plans = self.policy.plans(requests, load)
        for player in self.players:
            player.seconds = 0.0
        drafts = self.chain.draft(requests, plans)
        verdicts = [verdict(draft) for draft in drafts]
        drafted = [player.seconds for player in self.players]
        verified = self.truth.one_pass(len(requests) + sum(len(draft.tokens) for draft in drafts))
        whole = verified + sum(drafted)
        self.policy.observe(
            [Outcome(*parts) for parts in zip(requests, plans, drafts, verdicts, strict=True)],
            Timing([0.0, *drafted], verified, whole),
        )
        self.seconds += whole
        self.tokens += sum(len(verdict.tokens) for verdict in verdicts)
        self.drafts.append(drafts)
        return plans

    def run(self, requests: list[Request], steps: int) -> float:
        """Tokens a second of so many steps."""
        seconds, tokens = self.seconds, self.tokens
        for _ in range(steps):
            self.step(requests)
        return (self.tokens - tokens) / (self.seconds - seconds)

    def lengths(self, last: int) -> float:
        """The average length of the drafts of the last steps."""
        lengths = [len(draft.tokens) for drafts in self.drafts[-last:] for draft in drafts]
        return sum(lengths) / len(lengths)


def automatic(llm: LLM, passes: TargetCost, workload: str | None = None) -> AutoLength:
    """The policy of "auto" for an engine, which knows its costs and whose clock stands still."""
    bounds = WORKLOADS[workload]
    links = [
        Link(drafter, DraftCost(1e-4, 1e-5), Forecast(bounds.most, bounds.acceptance))
        for drafter in drafters_of(llm)
    ]
    trees = llm.engine.acceptance.trees
    return AutoLength(links, passes, bounds, lambda: None, trees=trees, clock=Clock())


@dataclass
class Around:
    """A length policy that does what another one does."""

    policy: LengthPolicy

    @property
    def longest(self) -> int:
        return self.policy.longest

    @property
    def nothing(self) -> Plan:
        return self.policy.nothing

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        return self.policy.plans(requests, load)

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        self.policy.observe(outcomes, timing)

    def end(self, request: Request) -> None:
        self.policy.end(request)


class Unclocked(Around):
    """It sees every step take as long as was foreseen, however busy the machine."""

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        self.policy.observe(outcomes, Timing([1e-3] * len(timing.drafted), 10e-3, 12e-3))


@dataclass
class Overruled(Around):
    """It is asked, and then something else is done."""

    instead: Callable[[Plan], Plan]

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        return [self.instead(plan) for plan in self.policy.plans(requests, load)]


@contextmanager
def overruled(llm: LLM, instead: Callable[[Plan], Plan]) -> Iterator[None]:
    """For a while, other plans than those of the engine's policy."""
    scheduler = llm.engine.scheduler
    policy = scheduler.policy
    scheduler.policy = Overruled(policy, instead)
    try:
        yield
    finally:
        scheduler.policy = policy


@dataclass
class Proposing(Memoryless):
    """A drafter that proposes the same tokens every time."""

    tokens: tuple[int, ...] = ()

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [Draft(self.tokens)] * len(requests)


def verdict(draft: Draft) -> Verdict:
    accepted = (*draft.tokens, 0).index(0)
    return Verdict(accepted, (1,) * (accepted + 1))
