"""Growing the drafts of a batch token by token, from a drafter's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import Draft
from outrider.drafting.limit import Limit
from outrider.ops.span import Span
from outrider.sampling.distribution import NO_TOKEN
from outrider.sampling.words import Words
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
    chances: list[float] = field(default_factory=list)

    def extend(self, tokens: int) -> bool:
        """Make room for so many more positions; False where there is none."""
        try:
            self.table.extend(self.table.filled + tokens)
        except OutOfBlocks:
            return False
        return True

    def span(self, tokens: list[int]) -> Span:
        """The pass over the next positions, which then are filled; logits after the last."""
        span = Span(tokens, self.table.filled, self.table.tables, 1, self.table.states)
        self.table.filled = span.end
        return span

    def add(self, token: int, probs: Tensor | None, confidence: float | None) -> None:
        """One more token, which may be the last: nothing is kept after one that ends the output."""
        self.tokens.append(token)
        if probs is not None:
            self.probs.append(probs)
        if confidence is not None:
            self.confidences.append(confidence)
        ends = token in self.request.stop_tokens or len(self.tokens) >= self.length
        self.complete = ends or not self.limit.more()

    def propose(
        self, logits: Tensor, words: Words, acceptance: Acceptance
    ) -> tuple[int, Tensor | None] | None:
        """A token after the draft so far, and what the rule wants to know of it; None where there is none.

        logits: [1, words].
        """
        request = self.request
        distribution = request.sampler.drafted(logits, [*request.output, *self.tokens], words)
        if distribution is None:
            return None
        token, probs = acceptance.propose(
            distribution, Spot(request.noise, request.num_output, len(self.tokens))
        )
        if token == NO_TOKEN:
            return None
        if request.params.trace_drafts and request.params.logprobs is not None:
            self.chances.append(float(words.spread(logits)[0].softmax(-1)[token]))
        return token, probs

    def draft(self) -> Draft:
        """What has grown."""
        probs = torch.stack(self.probs) if self.probs else None
        return Draft(tuple(self.tokens), probs, tuple(self.confidences), chances=tuple(self.chances))


def grow(active: Sequence[Growing], logits: Tensor, words: Words, acceptance: Acceptance) -> list[Growing]:
    """Add one token to each; those that go on. logits: [len(active), words] after the tokens so far."""
    informed = any(g.limit.informed for g in active)
    kinds = active[0].request.sampler.kinds
    confidences = kinds.confidences(logits) if informed else [None] * len(active)
    for g, row, confidence in zip(active, logits[:, None], confidences, strict=True):
        proposed = g.propose(row, words, acceptance) if g.limit.take(confidence) else None
        if proposed is None:
            g.complete = True
        else:
            g.add(*proposed, confidence)
    return [g for g in active if not g.complete and g.extend(1)]
