"""How long a draft should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from outrider.drafting.base import Draft
from outrider.drafting.grammar import forced_budget
from outrider.drafting.plan import Plan
from outrider.ops.budget import Budget
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


class Load(NamedTuple):
    """What a step computes without drafts, and what drafts may add.

    rows: of all requests; positions: cached ones that they attend to, each counted once a request; pairs: of
    a row and a position that it attends to; budget: rows that drafts may add.
    """

    rows: int
    positions: int
    pairs: int
    budget: int


class Outcome(NamedTuple):
    """What came of a request's part in a step. plan: as the scheduler had room for it.

    A policy may keep it for many steps, so it holds no logits, states or distributions."""

    request: Request
    plan: Plan
    draft: Draft
    verdict: Verdict


class Timing(NamedTuple):
    """Seconds of a step. drafted: by each drafter of the chain; verified: the target's pass and verdicts."""

    drafted: Sequence[float]
    verified: float
    whole: float


class LengthPolicy(Protocol):
    """Chooses, each step, what each request may draft. Nothing is a normal answer."""

    @property
    def longest(self) -> int:
        """The longest draft that a plan will allow for, unless a request asks for more itself."""

    @property
    def nothing(self) -> Plan:
        """The plan to draft nothing."""

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        """One plan a request; what does not fit is shortened by the scheduler."""

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        """What came of the step that was last planned."""

    def end(self, request: Request) -> None:
        """The request has finished."""


@dataclass(frozen=True)
class FixedLength:
    """The same length always, unless the request names its own. drafters: in the chain, beside grammars."""

    longest: int
    drafters: int

    @cached_property
    def nothing(self) -> Plan:
        return _same(Budget(0), 0, self.drafters)

    @cached_property
    def usual(self) -> Plan:
        """The plan of a request that asks for nothing special."""
        return _same(Budget(0), self.longest, self.drafters)

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        return [self._plan(request) for request in requests]

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        """Nothing is learnt."""

    def end(self, request: Request) -> None:
        """Nothing is kept."""

    def _plan(self, request: Request) -> Plan:
        own = request.params.num_speculative_tokens
        if own is None and request.sampler.grammar is None:
            return self.usual
        return fixed_plan(request, self.longest if own is None else own, self.drafters)


def fixed_plan(request: Request, length: int, drafters: int) -> Plan:
    """The same length for every drafter of a chain."""
    return _same(forced_budget(request), length, drafters)


def _same(forced: Budget, length: int, drafters: int) -> Plan:
    return Plan((forced, *(Budget(length),) * drafters)) if drafters else Plan()
