"""A small language model that drafts for the whole batch in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing, grow
from outrider.drafting.limit import Limit
from outrider.drafting.own_cache import OwnCache
from outrider.models.runner import ModelRunner
from outrider.sampling.words import AllTokens
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request


class ModelDrafter(OwnCache[ModelRunner]):
    """Drafts with a model of its own cache and of the target's vocabulary.

    A request's cache catches up with its committed tokens at its next draft: after a draft that stood as a
    whole by two tokens, after a pause by as many as were missed. One catch-up pass a step computes at most
    `max_rows` rows; a request that it could not finish gets no draft in this step.
    """

    def __init__(
        self, make: Callable[[], ModelRunner], acceptance: Acceptance, *, vocab: int, max_rows: int
    ) -> None:
        super().__init__(make)
        self._acceptance = acceptance
        self._vocab = vocab
        self._max_rows = max_rows

    def draft(self, requests: Sequence[Request], limits: Sequence[Limit]) -> list[Draft]:
        begun = [self._begin(r, limit) for r, limit in zip(requests, limits, strict=True)]
        logits, active = self._catch_up([g for g in begun if g is not None])
        while active:
            active = grow(active, logits, AllTokens(), self._acceptance)
            if active:
                logits = self._forward([(g, g.tokens[-1:]) for g in active])
        return [Draft() if g is None else g.draft() for g in begun]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        for request, verdict in zip(requests, verdicts, strict=True):
            table = self._tables.get(request)
            if table is not None:
                valid = min(table.filled, len(request.tokens) + verdict.accepted)
                table.advance([*request.tokens, *verdict.tokens], valid)

    def behind(self, request: Request) -> int:
        table = self._tables.get(request)
        return len(request.tokens) - 1 - (table.filled if table is not None else 0)

    def _begin(self, request: Request, limit: Limit) -> Growing | None:
        """A draft to grow; None where the draft model's context is at its end."""
        length = min(limit.length, self.runner.model.config.max_position_embeddings - len(request.tokens))
        if length <= 0:
            return None
        if request not in self._tables:
            self._tables[request] = self.runner.table()
            self._tables[request].adopt(request.tokens)
        return Growing(request, limit, length, self._tables[request])

    def _catch_up(self, growing: Sequence[Growing]) -> tuple[Tensor, list[Growing]]:
        """Compute the tokens that the draft model has not seen; logits of those who have seen all."""
        budget = self._max_rows
        work: list[tuple[Growing, list[int]]] = []
        # Those who are far behind take what the others leave, so as not to keep them from drafting.
        for g in sorted(growing, key=lambda g: len(g.request.tokens) - g.table.filled):
            tokens = g.request.tokens[g.table.filled :][:budget]
            if tokens and g.extend(len(tokens)):
                work.append((g, tokens))
                budget -= len(tokens)
        if not work:
            return torch.empty(0), []
        logits = self._forward(work)
        ready = [g.table.filled == len(g.request.tokens) for g, _ in work]
        active = [g for (g, _), r in zip(work, ready, strict=True) if r]
        # A copy of whole rows would wake PyTorch's threads, which then take the cores from the target's.
        return logits if all(ready) else logits[torch.tensor(ready)], active

    def _forward(self, work: Sequence[tuple[Growing, list[int]]]) -> Tensor:
        """Compute the tokens; logits after the last of each, [len(work), target's vocab]."""
        spans = [g.span(tokens) for g, tokens in work]
        logits = self.runner.forward(spans)
        # Models with one tokenizer may pad their embeddings differently; the padding is never drafted.
        padding = self._vocab - logits.shape[-1]
        return F.pad(logits, (0, padding), value=-torch.inf) if padding else logits
