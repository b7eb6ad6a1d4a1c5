"""A small language model that drafts for the whole batch in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import Draft
from outrider.drafting.limit import Limit
from outrider.models.runner import ModelRunner
from outrider.ops.batch import Span
from outrider.sampling.distribution import NO_TOKEN
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance, Spot

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(eq=False)
class Growing:
    """A draft in the making: its tokens so far and what the rule wants to know of each."""

    request: Request
    limit: Limit
    length: int
    table: BlockTable
    complete: bool = False
    tokens: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)

    def add(self, token: int, probs: Tensor | None, confidence: float | None) -> None:
        """One more token, which may be the last: nothing is kept after one that ends the output."""
        self.tokens.append(token)
        if probs is not None:
            self.probs.append(probs)
        if confidence is not None:
            self.confidences.append(confidence)
        ends = token in self.request.stop_tokens or len(self.tokens) >= self.length
        self.complete = ends or not self.limit.more()

    def draft(self) -> Draft:
        probs = torch.stack(self.probs) if self.probs else None
        return Draft(tuple(self.tokens), probs, tuple(self.confidences))


class ModelDrafter:
    """Drafts with a model of its own cache and of the target's vocabulary.

    A request's cache catches up with its committed tokens at its next draft: after a draft that stood as a
    whole by two tokens, after a pause by as many as were missed. One catch-up pass a step computes at most
    `max_rows` rows; a request that it could not finish gets no draft in this step.
    """

    def __init__(
        self, make: Callable[[], ModelRunner], acceptance: Acceptance, *, vocab: int, max_rows: int
    ) -> None:
        self._make = make
        self._runner: ModelRunner | None = None
        self._acceptance = acceptance
        self._vocab = vocab
        self._max_rows = max_rows
        self._tables: dict[Request, BlockTable] = {}

    @property
    def runner(self) -> ModelRunner:
        """The draft model with its cache, made when it is first needed."""
        if self._runner is None:
            self._runner = self._make()
        return self._runner

    def draft(self, requests: Sequence[Request], limits: Sequence[Limit]) -> list[Draft]:
        begun = [self._begin(r, limit) for r, limit in zip(requests, limits, strict=True)]
        logits, active = self._catch_up([g for g in begun if g is not None])
        while active:
            self._grow(active, logits)
            active = [g for g in active if not g.complete and self._extend(g, 1)]
            if active:
                logits = self._forward([(g, g.tokens[-1:]) for g in active])
        return [Draft() if g is None else g.draft() for g in begun]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        for request, verdict in zip(requests, verdicts, strict=True):
            table = self._tables.get(request)
            if table is not None:
                valid = min(table.filled, len(request.tokens) + verdict.accepted)
                table.advance([*request.tokens, *verdict.tokens], valid)

    def end(self, request: Request) -> None:
        table = self._tables.pop(request, None)
        if table is not None:
            table.truncate(0)

    def behind(self, request: Request) -> int:
        table = self._tables.get(request)
        return len(request.tokens) - 1 - (table.filled if table is not None else 0)

    def rest(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._runner = None
        self._tables.clear()

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
            if tokens and self._extend(g, len(tokens)):
                work.append((g, tokens))
                budget -= len(tokens)
        if not work:
            return torch.empty(0), []
        logits = self._forward(work)
        ready = [g.table.filled == len(g.request.tokens) for g, _ in work]
        return logits[torch.tensor(ready)], [g for (g, _), r in zip(work, ready, strict=True) if r]

    def _grow(self, active: Sequence[Growing], logits: Tensor) -> None:
        """Add one token to each. logits: the draft model's [len(active), vocab] after the tokens so far."""
        informed = any(g.limit.informed for g in active)
        confidences = _confidences(logits) if informed else [None] * len(active)
        for g, row, confidence in zip(active, logits, confidences, strict=True):
            proposed = self._propose(g, row) if g.limit.take(confidence) else None
            if proposed is None:
                g.complete = True
            else:
                g.add(*proposed, confidence)

    def _propose(self, g: Growing, row: Tensor) -> tuple[int, Tensor | None] | None:
        """A token after the draft so far, and what the rule wants to know of it; None where there is none."""
        request = g.request
        edited = request.sampler.edit(row[None], [*request.output, *g.tokens])
        if not len(edited):
            return None
        spot = Spot(request.noise, request.num_output, len(g.tokens))
        token, probs = self._acceptance.propose(request.sampler.distribution(edited), spot)
        return None if token == NO_TOKEN else (token, probs)

    def _forward(self, work: Sequence[tuple[Growing, list[int]]]) -> Tensor:
        """Compute the tokens; logits after the last of each, [len(work), target's vocab]."""
        spans = [Span(tokens, g.table.filled, g.table.blocks, 1) for g, tokens in work]
        logits = self.runner.forward(spans)
        for (g, _), span in zip(work, spans, strict=True):
            g.table.filled = span.end
        # Models with one tokenizer may pad their embeddings differently; the padding is never drafted.
        padding = self._vocab - logits.shape[-1]
        return F.pad(logits, (0, padding), value=-torch.inf) if padding else logits

    def _extend(self, g: Growing, tokens: int) -> bool:
        try:
            g.table.extend(g.table.filled + tokens)
        except OutOfBlocks:
            return False
        return True


def _confidences(logits: Tensor) -> list[float]:
    """How likely the likeliest token of each row is to the draft model. logits: [rows, vocab]."""
    likelihoods = (logits - logits.amax(dim=-1, keepdim=True)).exp_().sum(dim=-1).reciprocal_()
    confidences: list[float] = likelihoods.nan_to_num_(0.0).tolist()
    return confidences
