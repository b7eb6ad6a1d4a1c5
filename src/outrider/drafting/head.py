"""A head that drafts from the target's hidden states, for the whole batch in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing, grow
from outrider.drafting.limit import Limit
from outrider.drafting.own_cache import OwnCache
from outrider.models.eagle3 import Eagle3, HeadRunner
from outrider.ops.base import Passed
from outrider.ops.span import Span
from outrider.sampling.words import SomeTokens
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request

MAX_UNREAD = 512
NOTHING = Passed(torch.empty(0), None)


@dataclass
class Unread:
    """States of a request's latest positions that the head has not computed. end: the position after them."""

    end: int = 0
    pieces: list[Tensor] = field(default_factory=list)
    count: int = 0

    def add(self, first: int, states: Tensor) -> None:
        """States from position `first` on. What does not go on from the others replaces them: it was computed
        anew, or taken from the prefix cache in between."""
        if first != self.end:
            self.pieces.clear()
            self.count = 0
        self.pieces.append(states)
        self.count += len(states)
        self.end = first + len(states)
        # A head draws mostly on what is near: rather than hold the states of a whole book, it skips some.
        while self.count - len(self.pieces[0]) >= MAX_UNREAD:
            self.count -= len(self.pieces.pop(0))

    def take(self, count: int) -> Tensor:
        """The first `count` states, float32 [count, width]; they are read now."""
        states = self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)
        self.pieces = [states[count:]] if count < self.count else []
        self.count -= count
        return states[:count]


class HeadDrafter(OwnCache[HeadRunner]):
    """Drafts with an EAGLE-3 head that has a cache of its own.

    Row i of its cache is what the target knew at a position, with the token after it: all of the target's
    positions but for those that came from the prefix cache or were skipped, without gaps between them. Rows
    of drafted tokens, where its own states stand in for the target's, last for one draft. One pass over
    unread states computes `max_rows` rows at most; a request that it could not finish gets no draft in this
    step.
    """

    def __init__(
        self,
        make: Callable[[], HeadRunner],
        head: Eagle3,
        acceptance: Acceptance,
        *,
        state_layers: Sequence[int],
        vocab: int,
        max_rows: int,
    ) -> None:
        super().__init__(make)
        self.state_layers = tuple(state_layers)
        self._head = head
        self._acceptance = acceptance
        self._max_rows = max_rows
        self._unread: dict[Request, Unread] = {}
        self._words = SomeTokens(head.targets, vocab)

    def read(self, request: Request, first: int, states: Tensor) -> None:
        # A copy: what the target handed out holds the rows of all requests.
        self._unread.setdefault(request, Unread()).add(first, states.clone())

    def draft(self, requests: Sequence[Request], limits: Sequence[Limit]) -> list[Draft]:
        begun = [self._begin(r, limit) for r, limit in zip(requests, limits, strict=True)]
        passed, started = self._catch_up([g for g in begun if g is not None])
        rows = [g.table.filled for g in started]
        active = started
        while active:
            before = active
            active = grow(before, passed.logits, self._words, self._acceptance)
            if active:
                passed = self._go_on(active, _of(before, active, passed.kept))
        for g, filled in zip(started, rows, strict=True):
            g.table.truncate(filled)
        return [Draft() if g is None else g.draft() for g in begun]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """What stood is told by `read`."""

    def end(self, request: Request) -> None:
        super().end(request)
        self._unread.pop(request, None)

    def behind(self, request: Request) -> int:
        unread = self._unread.get(request)
        return 0 if unread is None else max(0, unread.count - 1)

    def _begin(self, request: Request, limit: Limit) -> Growing | None:
        """A draft to grow; None where the target's states are not known up to the last token."""
        unread = self._unread.get(request)
        if unread is None or unread.end != len(request.tokens) - 1:
            return None
        if request not in self._tables:
            self._tables[request] = self.runner.table()
        table = self._tables[request]
        if table.filled + unread.count + limit.length > self._head.config.max_position_embeddings:
            table.truncate(0)  # it goes on with what is near
        return Growing(request, limit, limit.length, table)

    def _catch_up(self, growing: Sequence[Growing]) -> tuple[Passed, list[Growing]]:
        """Compute unread states; what follows from the last of them, of those who have read all."""
        budget = self._max_rows
        spans: list[Span] = []
        states: list[Tensor] = []
        work: list[Growing] = []
        # Those who are far behind take what the others leave, so as not to keep them from drafting.
        for g in sorted(growing, key=lambda g: self._unread[g.request].count):
            unread = self._unread[g.request]
            rows, first = min(unread.count, budget), unread.end - unread.count
            if rows and g.extend(rows):
                tokens = g.request.tokens[first + 1 : first + 1 + rows]
                spans.append(g.span(tokens))
                states.append(unread.take(rows))
                work.append(g)
                budget -= rows
        if not work:
            return NOTHING, []
        passed = self.runner.read(spans, states[0] if len(states) == 1 else torch.cat(states))
        for g in work:
            g.table.settle(g.table.filled)
        ready = [g for g in work if not self._unread[g.request].count]
        return Passed(_of(work, ready, passed.logits), _of(work, ready, passed.kept)), ready

    def _go_on(self, active: Sequence[Growing], states: Tensor) -> Passed:
        """Compute the last token of each draft. states: the head's own, [len(active), hidden]."""
        return self.runner.go_on([g.span(g.tokens[-1:]) for g in active], states)


def _of(all: Sequence[Growing], some: Sequence[Growing], rows: Tensor | None) -> Tensor:
    """The rows of some of all."""
    assert rows is not None  # a head hands out its states
    if len(some) == len(all):
        return rows
    return rows[[i for i, g in enumerate(all) if g in some]]
