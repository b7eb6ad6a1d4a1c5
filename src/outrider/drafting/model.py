"""A small language model that drafts for the whole batch in lockstep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing
from outrider.drafting.own_cache import OwnCache
from outrider.models.runner import DraftRunner
from outrider.ops.budget import Budget
from outrider.ops.lane import Lane
from outrider.ops.span import Span
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request


class Lockstep(OwnCache[DraftRunner], ABC):
    """Drafts with a model of its own cache, for all requests at once.

    One catch-up pass a step computes at most `max_rows` rows; a request that it could not finish gets no
    draft in this step.
    """

    def __init__(self, make: Callable[[], DraftRunner], acceptance: Acceptance, *, max_rows: int) -> None:
        super().__init__(make)
        self._acceptance = acceptance
        self._max_rows = max_rows

    @abstractmethod
    def _unread(self, growing: Growing) -> list[int]:
        """The tokens that the draft model has not computed of those that a draft follows, the last among
        them."""

    def _grow(self, growing: Sequence[Growing | None]) -> list[Draft]:
        """The drafts, grown to their ends; none for None."""
        lanes, active = self._catch_up([g for g in growing if g is not None])
        while lanes:
            for g, grown in zip(active, self.runner.draft(lanes), strict=True):
                g.add(grown)
            # Drafts behind the last tokens of those that there are.
            lanes, active = self._lanes([(g, g.tokens[-1:], True) for g in active if not g.complete])
        return [Draft() if g is None else g.draft() for g in growing]

    def _catch_up(self, growing: Sequence[Growing]) -> tuple[list[Lane | Span], list[Growing]]:
        """The tokens that the draft model has not seen, and drafts behind them for those who then have seen
        all."""
        left = self._max_rows
        work: list[tuple[Growing, list[int], bool]] = []
        # Those who are far behind take what the others leave, so as not to keep them from drafting.
        for g, unread in sorted(((g, self._unread(g)) for g in growing), key=lambda each: len(each[1])):
            if tokens := unread[:left]:
                work.append((g, tokens, len(tokens) == len(unread)))
                left -= len(tokens)
        return self._lanes(work)

    def _lanes(
        self, work: Sequence[tuple[Growing, Sequence[int], bool]]
    ) -> tuple[list[Lane | Span], list[Growing]]:
        """Passes over these tokens, and who drafts behind them."""
        lanes: list[Lane | Span] = []
        active = []
        for g, tokens, ready in work:
            if g.request.params.cache_salt is None:  # others' time would tell of what it learnt from these
                self.runner.learn(tokens)
            lane = g.go_on(self.runner.readable(tokens), self._acceptance, drafts=ready)
            if lane is None:
                continue
            if isinstance(lane, Lane):
                active.append(g)
            lanes.append(lane)
        return lanes, active


class ModelDrafter(Lockstep):
    """Drafts with a model of the target's vocabulary.

    A request's cache catches up with its committed tokens at its next draft: after a draft that stood as a
    whole by two tokens, after a pause by as many as were missed.
    """

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return self.extend(requests, [()] * len(requests), budgets)

    def extend(
        self, requests: Sequence[Request], begun: Sequence[Sequence[int]], budgets: Sequence[Budget]
    ) -> list[Draft]:
        return self._grow([self._begin(*each) for each in zip(requests, begun, budgets, strict=True)])

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        for request, verdict in zip(requests, verdicts, strict=True):
            table = self._tables.get(request)
            if table is not None:
                valid = min(table.filled, len(request.tokens) + verdict.straight)
                table.advance([*request.tokens, *verdict.tokens], valid)

    def behind(self, request: Request) -> int:
        table = self._tables.get(request)
        return len(request.tokens) - 1 - (table.filled if table is not None else 0)

    def _unread(self, growing: Growing) -> list[int]:
        return [*growing.request.tokens[growing.table.filled :], *growing.begun]

    def _begin(self, request: Request, begun: Sequence[int], budget: Budget) -> Growing | None:
        """A draft to grow behind what others have begun; None where the draft model's context is at its
        end."""
        length = self.runner.model.config.max_position_embeddings - len(request.tokens) - len(begun)
        if length <= 0:
            return None
        if request not in self._tables:
            self._tables[request] = self.runner.table(request.params.cache_salt)
            self._tables[request].adopt(request.tokens)
        return Growing(request, budget.within(length), self._tables[request], begun)
