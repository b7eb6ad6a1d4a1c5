"""Drafts that grow in a cache of their own, as lanes of a backend's chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import Draft
from outrider.ops.budget import Budget
from outrider.ops.choice import Choice, Edits
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(eq=False)
class Growing:
    """A draft in the making: what is left of its budget, its tokens, and what was told of each. begun: tokens
    that others drafted before it; state: what the next token is drafted from, beside the last one; complete:
    nothing is added any more."""

    request: Request
    budget: Budget
    table: BlockTable
    begun: Sequence[int] = ()
    tokens: list[int] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    probs: list[NDArray[np.float64]] = field(default_factory=list)
    state: Any = None
    complete: bool = False

    def go_on(self, tokens: Sequence[int], acceptance: Acceptance, *, drafts: bool) -> Lane | Span | None:
        """The pass over the next positions, which then are filled: with a draft behind it, if one is to
        follow and something can be drafted there. None where there is no room for them."""
        span = self._span(tokens, logits=drafts)
        if span is None or not drafts:
            return span
        return self._lane(span, acceptance) or span

    def _span(self, tokens: Sequence[int], *, logits: bool) -> Span | None:
        start = self.table.filled
        try:
            self.table.extend(start + len(tokens))
        except OutOfBlocks:
            return None
        self._fill(len(tokens))
        return Span(tokens, start, self.table.tables, int(logits), self.table.states)

    def _lane(self, span: Span, acceptance: Acceptance) -> Lane | None:
        """The draft after a span, as far as there is room for it; None where nothing can be drafted there.

        What parameters do to a token may depend on the one before, so such a draft goes on token by token.
        """
        request = self.request
        sampler, params, written = request.sampler, request.params, request.num_output
        position = written + len(self.begun) + len(self.tokens)
        length, edits = self.budget.length, list[Edits]()
        if sampler.edits:
            output = [*request.output, *self.begun, *self.tokens]
            if not sampler.ready(output):
                return None
            length, edits = 1, sampler.rows([output])
        return Lane(
            span,
            Choice(
                1,
                sampler.filters,
                acceptance.draft_key(request.noise, written),
                position,
                edits,
            ),
            self._affordable(length, siblings=not edits),
            request.stop_tokens,
            chances=params.trace_drafts and params.logprobs is not None,
            probabilities=acceptance.looks,
        )

    def add(self, grown: Grown) -> None:
        """More tokens, behind which all but the last are computed."""
        self._fill(max(0, len(grown.tokens) - 1))
        self.tokens += grown.tokens
        self.seconds += grown.seconds
        self.confidences += grown.confidences
        self.chances += grown.chances
        if grown.probabilities is not None:
            self.probs.append(grown.probabilities)
        ends = not grown.tokens or grown.tokens[-1] in self.request.stop_tokens
        self.complete = ends or not self.request.sampler.edits
        if not self.complete:
            self.state = grown.state
            self.budget = self.budget.after(len(grown.tokens), grown.confidences)
            self.complete = not self.budget.length

    def draft(self) -> Draft:
        """What has grown, with siblings behind the chain."""
        probs = np.concatenate(self.probs) if self.probs else None
        beside = [(number, token) for number, token in enumerate(self.seconds) if token >= 0]
        parents = (*range(-1, len(self.tokens) - 1), *(number - 1 for number, _ in beside)) if beside else ()
        tokens = (*self.tokens, *(token for _, token in beside))
        return Draft(tokens, probs, tuple(self.confidences), chances=tuple(self.chances), parents=parents)

    def _affordable(self, length: int, *, siblings: bool) -> Budget:
        """What is left of the budget, for at most so many tokens, as far as there is room."""
        budget = self.budget.within(self._room(length))
        return budget if siblings else replace(budget, siblings=0)

    def _room(self, length: int) -> int:
        """Tokens, up to `length`, of which all but the last have room."""
        computed = length - 1
        try:
            self.table.extend(self.table.filled + computed, computed)
        except OutOfBlocks:
            computed = self.table.room_for_draft(0, computed)
        return 1 + computed

    def _fill(self, count: int) -> None:
        """So many more positions are computed."""
        self.table.filled += count


SomeGrowing = TypeVar("SomeGrowing", bound=Growing)


def grow_to_the_end(
    active: Sequence[SomeGrowing],
    grown: Sequence[Grown],
    go_on: Callable[[Sequence[SomeGrowing]], tuple[Sequence[SomeGrowing], Sequence[Grown]]],
) -> None:
    """Add to drafts what was grown, and then, with `go_on`, to those that are not complete until all are."""
    while active:
        for growing, more in zip(active, grown, strict=True):
            growing.add(more)
        active, grown = go_on([growing for growing in active if not growing.complete])
