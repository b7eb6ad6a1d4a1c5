"""A draft model of another vocabulary, which drafts text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from outrider.drafting.base import Draft
from outrider.drafting.grow import Growing
from outrider.drafting.model import Lockstep
from outrider.drafting.text import Seam, Spelt, Transcript, Translation
from outrider.models.runner import DraftRunner
from outrider.ops.budget import Budget
from outrider.ops.choice import Choice
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance

if TYPE_CHECKING:
    from outrider.engine.request import Request

FINER = 4
"""Tokens of the draft model at most for one of the target's."""


@dataclass(eq=False, kw_only=True)
class GrowingText(Growing):
    """Text in the making, in the draft model's tokens. wanted: what is asked for, in the target's; room:
    tokens that the draft model may add; spelt: what there is, in the target's.

    The likeliest text is drafted at any temperature. No noise of the target's could be shared with another
    vocabulary, and without it the likeliest token stands more often than one that is drawn: if p is also what
    the draft is drawn from, max p is at least the sum of p * p. Parameters that edit logits name the target's
    tokens, and are left to the target.
    """

    translation: Translation
    seam: Seam
    wanted: Budget
    room: int
    spelt: Spelt = field(default_factory=Spelt)

    def add(self, grown: Grown) -> None:
        self.table.filled += max(0, len(grown.tokens) - 1)
        self.tokens += grown.tokens
        self.confidences += grown.confidences
        self.chances += grown.chances
        self.spelt = self.translation.spell(self.seam, self.tokens)
        # Fewer than were asked for: it has ended, or is not sure enough of the next.
        stopped = len(grown.tokens) < self.budget.length
        missing = self.wanted.length - self.spelt.settled
        left = replace(self.wanted, length=self.room).after(len(self.tokens), self.confidences)
        self.budget = left.within(max(0, missing))
        self.complete = stopped or self.spelt.closed or not self.budget.length

    def draft(self) -> Draft:
        spelt, most = self.spelt, self.wanted.length
        # What is all that there is had better be tried.
        count = min(max(1, spelt.settled), most)
        return Draft(
            spelt.tokens[:count],
            confidences=spelt.shared(self.confidences)[:count],
            chances=spelt.shared(self.chances)[:count],
            steps=len(self.tokens),
        )

    def _lane(self, span: Span, acceptance: Acceptance) -> Lane:
        self.budget = self._affordable(self.budget.length, siblings=False)
        params = self.request.params
        chances = params.trace_drafts and params.logprobs is not None
        return Lane(span, Choice(1), self.budget, self.translation.ends, chances=chances)


class TextDrafter(Lockstep):
    """Drafts with a model of another vocabulary, from its own tokens of a request's text.

    When the target has said more, the tokens at the end of the text may be others. The cache is kept as far
    as they are the same, those of the last draft included. A draft is a guess without a distribution,
    whatever the acceptance rule.
    """

    def __init__(
        self,
        make: Callable[[], DraftRunner],
        acceptance: Acceptance,
        translation: Translation,
        *,
        max_rows: int,
    ) -> None:
        super().__init__(make, acceptance, max_rows=max_rows)
        self._translation = translation
        self._transcripts: dict[Request, Transcript] = {}
        self._grown: dict[Request, GrowingText] = {}
        self._stood: dict[Request, int] = {}  # tokens of the last draft
        self._knows: dict[Request, bool] = {}

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return self._grow([self._begin(*each) for each in zip(requests, budgets, strict=True)])

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        for request, verdict in zip(requests, verdicts, strict=True):
            if request in self._grown:
                self._stood[request] = verdict.accepted

    def behind(self, request: Request) -> int:
        transcript = self._transcripts.get(request)
        if transcript is None:
            return len(request.tokens) - 1
        unread = len(request.tokens) - transcript.read - self._stood.get(request, 0)
        uncomputed = len(transcript.tokens) - self._tables[request].filled
        return max(0, max(0, uncomputed) + unread - 1)

    def knows(self, request: Request) -> bool:
        """Whether it knows the language of the prompt's end."""
        known = self._knows.get(request)
        if known is None:
            prompt = request.tokens[: request.prompt_length]
            known = self._knows[request] = self._translation.is_known(prompt)
        return known

    def end(self, request: Request) -> None:
        super().end(request)
        for kept in (self._transcripts, self._grown, self._stood, self._knows):
            kept.pop(request, None)

    def rest(self) -> None:
        super().rest()
        for kept in (self._transcripts, self._grown, self._stood, self._knows):
            kept.clear()

    def _unread(self, growing: Growing) -> list[int]:
        return self._transcripts[growing.request].tokens[growing.table.filled :]

    def _begin(self, request: Request, budget: Budget) -> GrowingText | None:
        transcript = self._up_to_date(request)
        length = self.runner.model.config.max_position_embeddings - len(transcript.tokens)
        if length <= 0:
            return None
        room = min(length, FINER * budget.length)
        self._grown[request] = GrowingText(
            request,
            budget.within(room),
            self._tables[request],
            translation=self._translation,
            seam=transcript.seam,
            wanted=budget,
            room=room,
        )
        return self._grown[request]

    def _up_to_date(self, request: Request) -> Transcript:
        """The request's text, with a cache that holds its beginning."""
        if request not in self._tables:
            self._tables[request] = self.runner.table(request.params.cache_salt)
            self._transcripts[request] = Transcript(self._translation)
        transcript, table = self._transcripts[request], self._tables[request]
        grown = self._grown.pop(request, None)
        self._stood.pop(request, None)
        settled = transcript.settled
        before = [*transcript.tokens[settled:], *(grown.tokens if grown is not None else ())]
        transcript.add(request.tokens[transcript.read :])
        tokens = transcript.tokens
        same = settled + _agreeing(before, tokens[settled:])
        # The last token is computed in any case: what comes next is drafted from it.
        valid = min(same, table.filled, len(tokens) - 1)
        table.advance(tokens, valid, transcript.settled)
        if not table.filled:
            table.adopt(tokens)
        return transcript


def _agreeing(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
