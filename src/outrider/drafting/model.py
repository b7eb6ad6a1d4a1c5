"""A small language model that drafts for the whole batch in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import Draft
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
    length: int
    table: BlockTable
    tokens: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Long enough, or ended by a token after which nothing would be kept."""
        return len(self.tokens) >= self.length or bool(
            self.tokens and self.tokens[-1] in self.request.stop_tokens
        )

    def draft(self) -> Draft:
        return Draft(tuple(self.tokens), torch.stack(self.probs) if self.probs else None)


class ModelDrafter:
    """Drafts with a model of its own cache and of the target's vocabulary.

    A request's cache catches up with its committed tokens at its next draft: after a draft that stood as a
    whole by two tokens, after a pause by as many as were missed. One catch-up pass a step computes at most
    `max_rows` rows; a request that it could not finish gets no draft in this step.
    """

    def __init__(self, runner: ModelRunner, acceptance: Acceptance, *, vocab: int, max_rows: int) -> None:
        self.runner = runner
        self._acceptance = acceptance
        self._vocab = vocab
        self._max_rows = max_rows
        self._tables: dict[Request, BlockTable] = {}

    def draft(self, requests: Sequence[Request], lengths: Sequence[int]) -> list[Draft]:
        begun = [self._begin(r, length) for r, length in zip(requests, lengths, strict=True)]
        logits, active = self._catch_up([g for g in begun if g is not None])
        while active:
            for growing, row in zip(active, logits, strict=True):
                self._grow(growing, row)
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

    def _begin(self, request: Request, length: int) -> Growing | None:
        """A draft to grow; None where none is wanted or the draft model's context is at its end."""
        room = self.runner.model.config.max_position_embeddings - len(request.tokens)
        length = min(length, room)
        if length <= 0:
            return None
        if request not in self._tables:
            self._tables[request] = self.runner.table()
            self._tables[request].adopt(request.tokens)
        return Growing(request, length, self._tables[request])

    def _catch_up(self, growing: Sequence[Growing]) -> tuple[Tensor, list[Growing]]:
        """Compute the tokens that the draft model has not seen; logits of those who have seen all."""
        budget = self._max_rows
        work: list[tuple[Growing, list[int]]] = []
        for g in growing:
            tokens = g.request.tokens[g.table.filled :][:budget]
            if tokens and self._extend(g, len(tokens)):
                work.append((g, tokens))
                budget -= len(tokens)
        if not work:
            return torch.empty(0), []
        logits = self._forward(work)
        ready = [g.table.filled == len(g.request.tokens) for g, _ in work]
        return logits[torch.tensor(ready)], [g for (g, _), r in zip(work, ready, strict=True) if r]

    def _grow(self, g: Growing, row: Tensor) -> None:
        """Add one token. row: the draft model's logits [vocab] after the tokens so far."""
        request = g.request
        edited = request.sampler.edit(row[None], [*request.output, *g.tokens])
        if not len(edited):
            g.length = len(g.tokens)
            return
        spot = Spot(request.noise, request.num_output, len(g.tokens))
        token, probs = self._acceptance.propose(request.sampler.distribution(edited), spot)
        if token == NO_TOKEN:
            g.length = len(g.tokens)
            return
        g.tokens.append(token)
        if probs is not None:
            g.probs.append(probs)

    def _forward(self, work: Sequence[tuple[Growing, list[int]]]) -> Tensor:
        """Compute the tokens; logits after the last of each, [len(work), target's vocab]."""
        spans = [Span(tokens, g.table.filled, g.table.blocks, 1) for g, tokens in work]
        logits = self.runner.forward(spans)
        for (g, _), span in zip(work, spans, strict=True):
            g.table.filled = span.end
        # Models with one tokenizer may pad their embeddings differently; the padding is never drafted.
        return F.pad(logits, (0, self._vocab - logits.shape[-1]), value=-torch.inf)

    def _extend(self, g: Growing, tokens: int) -> bool:
        try:
            g.table.extend(g.table.filled + tokens)
        except OutOfBlocks:
            return False
        return True
