"""A head that drafts from the target's hidden states, for the whole batch in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing, grow_to_the_end
from outrider.drafting.own_cache import OwnCache
from outrider.models.head import DraftHead, HeadRunner
from outrider.ops.base import Backend
from outrider.ops.budget import Budget
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request

MAX_UNREAD = 512


@dataclass
class UnreadStates:
    """States of a request's latest positions that the head has not computed, in the backend's form. end: the
    position after them."""

    backend: Backend
    end: int = 0
    pieces: list[Any] = field(default_factory=list)
    count: int = 0

    def add(self, first: int, states: Any) -> None:
        """States from position `first` on. What does not go on from the others replaces them: it was computed
        anew, or taken from the prefix cache in between."""
        if first != self.end:
            self.pieces.clear()
            self.count = 0
        self.pieces.append(self.backend.own(states))
        self.count += len(states)
        self.end = first + len(states)
        # A head draws mostly on what is near: rather than hold the states of a whole book, it skips some.
        while self.count - len(self.pieces[0]) >= MAX_UNREAD:
            self.count -= len(self.pieces.pop(0))

    def take(self, count: int) -> Any:
        """The first `count` states, [count, width]; they are read now."""
        states = self.pieces[0] if len(self.pieces) == 1 else self.backend.join(self.pieces)
        self.pieces = [states[count:]] if count < self.count else []
        self.count -= count
        return states[:count]


class HeadDrafter(OwnCache[HeadRunner]):
    """Drafts with a head that has a cache of its own.

    Row i of its cache is what the target knew at a position, with the token after it: all of the target's
    positions but for those that came from the prefix cache or were skipped, without gaps between them. Rows
    of drafted tokens, where its own states stand in for the target's, last for one draft. One pass over
    unread states computes `max_rows` rows at most; a request that it could not finish gets no draft in this
    step.
    """

    def __init__(
        self,
        make: Callable[[DraftHead], HeadRunner],
        head: DraftHead,
        acceptance: Acceptance,
        *,
        state_layers: Sequence[int],
        max_rows: int,
    ) -> None:
        super().__init__(lambda: make(self.head))
        self.state_layers = tuple(state_layers)
        self.head = head
        """What drafts."""
        self._acceptance = acceptance
        self._max_rows = max_rows
        self._unread: dict[Request, UnreadStates] = {}

    def exchange(self, head: DraftHead) -> None:
        """Draft with another head of the same shape, on the same backend. Called between two steps.

        What is cached of requests stays, as the head before computed it, so that drafts do not have to begin
        anew: they may be less good for that, and are judged as ever.
        """
        self.head = head
        if self._runner is not None:
            self._runner.exchange(head)

    def read(self, request: Request, first: int, states: Any) -> None:
        unread = self._unread.get(request)
        if unread is None:
            unread = self._unread[request] = UnreadStates(self.head.backend)
        unread.add(first, states)

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        begun = [self._begin(r, budget) for r, budget in zip(requests, budgets, strict=True)]
        started, active, grown = self._catch_up([g for g in begun if g is not None])
        rows = [g.table.filled for g in started]
        grow_to_the_end(active, grown, self._go_on)
        for g, filled in zip(started, rows, strict=True):
            g.table.settle(filled)
        return [Draft() if g is None else g.draft() for g in begun]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """What stood is told by `read`."""

    def end(self, request: Request) -> None:
        super().end(request)
        self._unread.pop(request, None)

    def behind(self, request: Request) -> int:
        unread = self._unread.get(request)
        return 0 if unread is None else max(0, unread.count - 1)

    def _begin(self, request: Request, budget: Budget) -> Growing | None:
        """A draft to grow; None where the target's states are not known up to the last token."""
        unread = self._unread.get(request)
        if unread is None or unread.end != len(request.tokens) - 1:
            return None
        if request not in self._tables:
            self._tables[request] = self.runner.table()
        table = self._tables[request]
        if table.filled + unread.count + budget.length > self.head.max_position_embeddings:
            table.truncate(0)  # it goes on with what is near
        return Growing(request, budget, table)

    def _catch_up(self, growing: Sequence[Growing]) -> tuple[list[Growing], list[Growing], list[Grown]]:
        """Compute unread states. Who has computed any, and who then has read all, with their drafts."""
        left = self._max_rows
        lanes: list[Lane | Span] = []
        states, started, active = [], [], []
        # Those who are far behind take what the others leave, so as not to keep them from drafting.
        for g in sorted(growing, key=lambda g: self._unread[g.request].count):
            unread = self._unread[g.request]
            rows, first = min(unread.count, left), unread.end - unread.count
            ready = rows == unread.count
            tokens = g.request.tokens[first + 1 : first + 1 + rows]
            lane = g.go_on(tokens, self._acceptance, drafts=ready) if rows else None
            if lane is None:
                continue
            states.append(unread.take(rows))
            started.append(g)
            left -= rows
            if isinstance(lane, Lane):
                active.append(g)
            lanes.append(lane)
        if not lanes:
            return [], [], []
        read = states[0] if len(states) == 1 else self.head.backend.join(states)
        return started, active, self.runner.read(lanes, read)

    def _go_on(self, growing: Sequence[Growing]) -> tuple[list[Growing], list[Grown]]:
        """Drafts behind the last tokens of those that there are."""
        lanes: list[Lane | Span] = []
        active = []
        for g in growing:
            lane = g.go_on(g.tokens[-1:], self._acceptance, drafts=True)
            if isinstance(lane, Lane):
                active.append(g)
                lanes.append(lane)
        if not lanes:
            return [], []
        return active, self.runner.go_on(lanes, self.head.backend.join([g.state for g in active]))
