"""Verification: what the target's forward pass computes for a step, and the verdict on each draft."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from outrider.drafting.base import Draft
from outrider.engine.scheduler import Work
from outrider.errors import INTERNAL_ERROR
from outrider.faults import Faults
from outrider.models.runner import ModelRunner
from outrider.ops.choice import Choice, Edits, NoToken, Rows
from outrider.ops.span import Span
from outrider.verification.accept import Verdict
from outrider.verification.noise import Stream
from outrider.verification.rules import Acceptance, Round

logger = logging.getLogger(__name__)
faults = Faults(logger)

NOTHING = Verdict(0, ())
WHY = {
    NoToken.NAN: "NaN",
    NoToken.INFINITE: "+inf",
    NoToken.NOTHING: "nothing but -inf",
}


@dataclass(frozen=True)
class Judged:
    """One request's share of a step: what was computed, drafted, and decided.

    rows: the logits, where they are to be looked at; where the request caught up, those from `new` on are for
    new tokens. states: of every row that was computed, if the target hands them out. error: why no token
    could be chosen."""

    work: Work
    draft: Draft
    rows: Rows | None
    states: Any
    verdict: Verdict
    new: int = 0
    error: str | None = None

    def row_of(self, number: int) -> int:
        """The row of logits from which a token of the verdict was chosen."""
        if not self.verdict.path or not number:
            return self.new + number
        return self.new + self.verdict.path[number - 1] + 1

    @property
    def computed(self) -> Any:
        """The states of the tokens that stand."""
        count, path = self.work.count, self.verdict.path
        if self.verdict.straight == self.verdict.accepted:
            return self.states[: count + self.verdict.accepted]
        return self.states[[*range(count), *(count + number for number in path)]]


class _Share(NamedTuple):
    """What a request adds to a step: work, the draft that is judged, and how tokens are chosen."""

    work: Work
    draft: Draft
    span: Span
    choice: Choice | None


def verify(
    target: ModelRunner, acceptance: Acceptance, work: Sequence[Work], drafts: Sequence[Draft]
) -> list[Judged]:
    """One forward pass over the rows of all requests, and a verdict for each that caught up.

    Where the pass fails, it is done again without drafts, and if that fails too in halves, down to the
    requests for which it fails when they are alone: these end with an error. A pass that failed leaves
    nothing to undo, since only what is committed counts as computed.
    """
    try:
        return _verify(target, acceptance, work, drafts)
    except Exception:
        faults.tell("a pass failed, and is done again without drafts")
        return _bisect(target, acceptance, work)


def _bisect(target: ModelRunner, acceptance: Acceptance, work: Sequence[Work]) -> list[Judged]:
    try:
        return _verify(target, acceptance, work, [Draft()] * len(work))
    except Exception:
        middle = len(work) // 2
        if middle:
            halves = (work[:middle], work[middle:])
            return [judged for half in halves for judged in _bisect(target, acceptance, half)]
        logger.exception("request %s ends, since the pass fails for it alone", work[0].request.id)
        return [_failed(work[0])]


def _failed(work: Work) -> Judged:
    """What comes of a request that ends: none of its positions is committed."""
    return Judged(replace(work, count=0), Draft(), None, None, NOTHING, error=INTERNAL_ERROR)


def _verify(
    target: ModelRunner, acceptance: Acceptance, work: Sequence[Work], drafts: Sequence[Draft]
) -> list[Judged]:
    shares = [_share_or_none(w, draft) for w, draft in zip(work, drafts, strict=True)]
    asked = [share for share in shares if share is not None]
    if not asked:
        return [_failed(w) for w in work]
    looks = acceptance.looks or any(map(_looks, work))
    spans = [share.span for share in asked]
    tokens, rows, kept = target.step(spans, [share.choice for share in asked], looks=looks)
    judged, first = [], 0
    for number, share in enumerate(asked):
        last = first + len(share.span.tokens)
        states = None if kept is None else kept[first:last]
        seen = None if rows is None else rows[number]
        judged.append(_judge_or_fail(acceptance, share, tokens[number], seen, states))
        first = last
    if len(judged) == len(work):
        return judged
    each = iter(judged)
    return [_failed(w) if share is None else next(each) for w, share in zip(work, shares, strict=True)]


def _share_or_none(work: Work, draft: Draft) -> _Share | None:
    """A fault in a draft costs the draft. One in what the request brought along, its edits for example, ends
    that request alone: None."""
    try:
        return _share(work, draft)
    except Exception:
        if draft.tokens:
            faults.tell("a draft could not be judged, and is dropped")
            return _share_or_none(work, Draft())
        logger.exception("request %s ends: how its tokens are chosen cannot be said", work.request.id)
        return None


def _share(work: Work, draft: Draft) -> _Share:
    request, start = work.request, work.request.table.filled
    tokens = [*request.tokens[start : start + work.count], *draft.tokens]
    rows = len(draft.tokens) + 1 if work.catches_up else 0
    logit_rows = len(tokens) if request.wants_prompt_logprobs else rows
    table = request.table
    span = Span(tokens, start, table.tables, logit_rows, table.states, draft.parents)
    if not rows:
        return _Share(work, draft, span, None)
    sampler, edits = request.sampler, list[Edits]()
    if sampler.edits:
        output = request.output
        edits = sampler.rows([*output, *draft.before(n)] for n in range(-1, len(draft.tokens)))
        rows = len(edits)
    key, skip = request.noise.key(Stream.TOKEN), logit_rows - len(draft.tokens) - 1
    offsets: Sequence[int] = ()
    if draft.parents:
        last = len(request.tokens) - 1
        offsets = [position - last for position in span.positions[-len(draft.tokens) - 1 :][:rows]]
    choice = Choice(rows, sampler.filters, key, request.num_output, edits, skip, offsets)
    return _Share(work, draft, span, choice)


def _looks(work: Work) -> bool:
    return work.request.params.logprobs is not None or work.request.wants_prompt_logprobs


def _judge_or_fail(
    acceptance: Acceptance, share: _Share, chosen: Sequence[int], rows: Rows | None, states: Any
) -> Judged:
    """A fault in judging costs the draft, or, where there is none, ends that request alone."""
    try:
        return _judge(acceptance, share, chosen, rows, states)
    except Exception:
        if share.draft.tokens:
            faults.tell("a draft could not be judged, and is dropped")
            undrafted = share._replace(draft=Draft())
            return _judge_or_fail(acceptance, undrafted, chosen[:1], rows, states)
        logger.exception("request %s could not be judged", share.work.request.id)
        return _failed(share.work)


def _judge(
    acceptance: Acceptance, share: _Share, chosen: Sequence[int], rows: Rows | None, states: Any
) -> Judged:
    work, draft, choice = share.work, share.draft, share.choice
    if choice is None:
        return Judged(work, draft, rows, states, NOTHING)
    request = work.request
    verdict = acceptance.judge(
        Round(chosen, rows, draft.tokens, draft.probs, request.noise, request.num_output, draft.parents)
    )
    error = None if verdict.tokens else _why_none(work, NoToken(chosen[0]))
    return Judged(work, draft, rows, states, verdict, choice.skip, error)


def _why_none(work: Work, found: NoToken) -> str:
    """What keeps a token from being chosen."""
    request = work.request
    if found is NoToken.NOTHING and request.sampler.edits:
        return f"after {request.num_output} tokens the sampling parameters leave no token to choose"
    return (
        f"after {request.num_output} tokens the logits hold {WHY[found]}, so no token can be chosen; the "
        "model's weights are broken or overflow, or a sampling parameter is too large"
    )
