"""What a grammar leaves no choice but to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from outrider.drafting.base import Draft
from outrider.ops.budget import Budget
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request

FORCED = 16  # tokens that are drafted at once


class GrammarDrafter:
    """The first of every chain. It drafts what the grammar of a request forces, in the tokens that the
    tokenizer would make of it; the target may spell it otherwise, so it is asked all the same."""

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [
            Draft(() if (grammar := r.sampler.grammar) is None else grammar.forced(r.output)[: budget.length])
            for r, budget in zip(requests, budgets, strict=True)
        ]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """Nothing is learnt."""

    def end(self, request: Request) -> None:
        """Nothing is kept."""

    def behind(self, request: Request) -> int:
        return 0

    def rest(self) -> None:
        """Nothing is kept."""


def forced_budget(request: Request) -> Budget:
    """As much as a grammar may force. It costs no drafter's time and mostly stands, so it is not weighed."""
    own = request.params.num_speculative_tokens
    return Budget(0 if request.sampler.grammar is None else FORCED if own is None else min(FORCED, own))


def within_grammar(request: Request, draft: Draft) -> Draft:
    """The beginning of a draft that stays in the request's grammar.

    The target gives what follows no chance at all, so that leaving it out biases no acceptance rule.
    """
    grammar = request.sampler.grammar
    if grammar is None or not draft.tokens:
        return draft
    count = grammar.count(request.output, draft.tokens[: draft.depth])
    probs = None if draft.probs is None else draft.probs[:count]
    return replace(
        draft,
        tokens=draft.tokens[:count],
        parents=(),
        probs=probs,
        confidences=draft.confidences[:count],
        chances=draft.chances[:count],
        sources=draft.sources[:count],
    )
