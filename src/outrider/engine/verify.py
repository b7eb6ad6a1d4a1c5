"""Verification: what the target's forward pass computes for a step, and the verdict on each draft."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from outrider.drafting.base import Draft
from outrider.engine.scheduler import Work
from outrider.errors import INTERNAL_ERROR
from outrider.faults import Faults
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.sampling.distribution import NO_TOKEN
from outrider.verification.accept import Verdict
from outrider.verification.rules import Acceptance, Spot

logger = logging.getLogger(__name__)
faults = Faults(logger)

NOTHING = Verdict(0, ())


@dataclass(frozen=True)
class Judged:
    """One request's share of a step: what was computed, drafted, and decided.

    logits: [rows with logits, vocab]; where the request caught up, the last `len(draft.tokens) + 1` of them
    are for new tokens. states: of every row that was computed, if the target hands them out. error: why no
    token could be chosen.
    """

    work: Work
    draft: Draft
    logits: Tensor
    states: Tensor | None
    verdict: Verdict
    error: str | None = None


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
        nothing = replace(work[0], count=0)  # so none of its positions is committed
        return [Judged(nothing, Draft(), torch.empty(0), None, NOTHING, INTERNAL_ERROR)]


def _verify(
    target: ModelRunner, acceptance: Acceptance, work: Sequence[Work], drafts: Sequence[Draft]
) -> list[Judged]:
    spans = [_span(w, draft.tokens) for w, draft in zip(work, drafts, strict=True)]
    passed = target.run(spans)
    logits = _cut(passed.logits, [span.logit_rows for span in spans])
    rows = [len(span.tokens) for span in spans]
    states = [None] * len(spans) if passed.kept is None else _cut(passed.kept, rows)
    return [_judge_or_fail(acceptance, *of) for of in zip(work, drafts, logits, states, strict=True)]


def _cut(rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The rows of each request."""
    return [rows[first:last] for first, last in pairwise(accumulate(counts, initial=0))]


def _span(work: Work, draft: Sequence[int]) -> Span:
    request, start = work.request, work.request.table.filled
    tokens = [*request.tokens[start : start + work.count], *draft]
    new_rows = len(draft) + 1 if work.catches_up else 0
    logit_rows = len(tokens) if request.wants_prompt_logprobs else new_rows
    return Span(tokens, start, request.table.tables, logit_rows, request.table.states)


def _judge_or_fail(
    acceptance: Acceptance, work: Work, draft: Draft, logits: Tensor, states: Tensor | None
) -> Judged:
    """A fault in a draft costs the draft. One in what the request brought along, its edits for example, ends
    that request alone."""
    try:
        return _judge(acceptance, work, draft, logits, states)
    except Exception:
        if draft.tokens:
            faults.tell("a draft could not be judged, and is dropped")
            undrafted = logits[: len(logits) - len(draft.tokens)]
            return _judge_or_fail(acceptance, work, Draft(), undrafted, states)
        logger.exception("request %s could not be judged", work.request.id)
        return Judged(work, draft, logits, states, NOTHING, INTERNAL_ERROR)


def _judge(acceptance: Acceptance, work: Work, draft: Draft, logits: Tensor, states: Tensor | None) -> Judged:
    if not work.catches_up:
        return Judged(work, draft, logits, states, NOTHING)
    request, tokens = work.request, draft.tokens
    rows = logits[len(logits) - len(tokens) - 1 :]
    edited = request.sampler.edit(rows, request.output, tokens)
    if not len(edited):
        reason = f"after {request.num_output} tokens the sampling parameters leave no token to choose"
        return Judged(work, draft, logits, states, NOTHING, reason)
    # Where the edits leave nothing to choose after part of the draft, that part is judged, all of it: to drop
    # a token for what follows it would bias the draw. A raw row stands in for the bonus, which is dropped.
    possible = tokens[: len(edited)]
    judged_rows = edited
    if len(edited) == len(possible):
        judged_rows = torch.cat([edited, rows[len(edited) : len(possible) + 1]])
    probs = None if draft.probs is None else draft.probs[: len(possible)]
    spot = Spot(request.noise, request.num_output)
    verdict = acceptance.judge(request.sampler.distribution(judged_rows), possible, probs, spot)
    if verdict.accepted == len(edited) or verdict.tokens[-1] == NO_TOKEN:
        # What stands is kept; the next step comes to the row that has no token, as plain decoding does.
        verdict = Verdict(verdict.accepted, possible[: verdict.accepted])
    if not verdict.tokens:
        return Judged(work, draft, logits, states, NOTHING, _why_none(edited[0], request.num_output))
    return Judged(work, draft, logits, states, verdict)


def _why_none(row: Tensor, num_output: int) -> str:
    """What keeps a token from being chosen from edited logits [vocab]."""
    held = "NaN" if row.isnan().any() else "+inf" if row.max() == torch.inf else "nothing but -inf"
    return (
        f"after {num_output} tokens the logits hold {held}, so no token can be chosen; the model's weights "
        "are broken or overflow, or a sampling parameter is too large"
    )
