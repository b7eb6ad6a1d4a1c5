"""An assistant that drafts from the target's last state and the target's K and V, for the whole batch in
lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing, grow_to_the_end
from outrider.models.assistant import Assistant, AssistantRunner
from outrider.models.runner import ModelRunner
from outrider.ops.budget import Budget
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(frozen=True)
class LastState:
    """What the target's last layer left at position `end` - 1, [1, hidden] in the backend's form."""

    end: int
    state: Any


class InPlace(Growing):
    """A draft over the request's own table, in which it reads and fills nothing: every token is drafted from
    the place of the last computed position."""

    def _span(self, tokens: Sequence[int], *, logits: bool) -> Span:
        return Span(tokens, self.table.filled - 1, self.table.tables, int(logits))

    def _fill(self, count: int) -> None:
        """Nothing is kept of drafted tokens."""

    def _room(self, length: int) -> int:
        return length


class AssistantDrafter:
    """Drafts with an assistant. Of a request it keeps the target's last state, so a prompt costs it nothing,
    and neither does a pause."""

    def __init__(self, assistant: Assistant, acceptance: Acceptance, *, layers: int) -> None:
        """layers: of the target, behind the last of which it reads."""
        self.state_layers = (layers,)
        self._assistant = assistant
        self._acceptance = acceptance
        self._target: ModelRunner | None = None
        self._runner: AssistantRunner | None = None
        self._last: dict[Request, LastState] = {}

    def attach(self, target: ModelRunner) -> None:
        """Read this target's cache from here on."""
        self._target, self._runner = target, None

    @property
    def runner(self) -> AssistantRunner:
        """What drafts, made when it is first needed."""
        if self._runner is None:
            assert self._target is not None, "attach comes before the first draft"
            self._runner = AssistantRunner(self._assistant, self._target)
        return self._runner

    def read(self, request: Request, first: int, states: Any) -> None:
        if len(states):
            self._last[request] = LastState(first + len(states), self._assistant.backend.own(states[-1:]))

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        begun = [self._begin(r, budget) for r, budget in zip(requests, budgets, strict=True)]
        grow_to_the_end(*self._grow([g for g in begun if g is not None]), self._grow)
        return [Draft() if g is None else g.draft() for g in begun]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """What stood is told by `read`."""

    def end(self, request: Request) -> None:
        self._last.pop(request, None)

    def behind(self, request: Request) -> int:
        return 0

    def rest(self) -> None:
        self._runner = None

    def _begin(self, request: Request, budget: Budget) -> InPlace | None:
        """A draft to grow; None where the target's state is not known up to the last token."""
        last = self._last.get(request)
        if last is None or not last.end == request.table.filled == len(request.tokens) - 1:
            return None
        return InPlace(request, budget, request.table)

    def _grow(self, growing: Sequence[InPlace]) -> tuple[list[InPlace], list[Grown]]:
        """More tokens of those drafts to which any can be added: the first of each from the target's state,
        the others, all at the same time, from the assistant's own."""
        lanes: list[Lane | Span] = []
        active = []
        for g in growing:
            lane = g.go_on((g.tokens or g.request.tokens)[-1:], self._acceptance, drafts=True)
            if isinstance(lane, Lane):
                lanes.append(lane)
                active.append(g)
        if not lanes:
            return [], []
        join = self._assistant.backend.join
        if active[0].tokens:
            return active, self.runner.go_on(lanes, join([g.state for g in active]))
        return active, self.runner.read(lanes, join([self._last[g.request].state for g in active]))
