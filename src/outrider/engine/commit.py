"""Committing a verdict: the only place that changes a request's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outrider.engine.generation import Resumption
from outrider.engine.request import Request
from outrider.engine.verify import Judged
from outrider.errors import INTERNAL_ERROR
from outrider.outputs import Drafted, Increment, Logprob, Logprobs, Origin


def begin(request: Request, now: float) -> None:
    """A step that computes tokens of the request begins; the first one tells how many the cache had."""
    if request.first_scheduled_time is None:
        request.first_scheduled_time = now
        request.cached_tokens = min(request.table.filled, request.prompt_length)


def commit(judged: Judged, now: float, decode: Callable[[int], str]) -> Increment:
    """Add what stands to the request: tokens, text, log-probabilities, and statistics.

    Tokens after one that ends the output are dropped, also in the middle of an accepted draft.
    """
    request, verdict = judged.work.request, judged.verdict
    computed = request.table.filled + judged.work.count
    if request.wants_prompt_logprobs:
        _add_prompt_logprobs(request, judged, computed, decode)

    before = request.num_output
    drafted = judged.draft.depth
    count = request.params.logprobs
    for i, (token, origin) in enumerate(zip(verdict.tokens, _origins(judged), strict=True)):
        logprobs = None if count is None else _logprobs(judged, judged.row_of(i), token, count, decode)
        _add(request, token, origin, logprobs)
        if request.finish_reason is not None:
            break
    added = request.num_output - before
    accepted = min(verdict.accepted, added)
    if drafted:
        request.drafts[drafted, accepted] += 1
    if added:
        request.token_times.append((now, added))
    if judged.error is not None:
        request.finish_reason, request.error = "error", judged.error
    draft = _drafted(judged, before) if drafted and request.params.trace_drafts else None
    return _increment(request, added, drafted, accepted, now, draft)


def resume(request: Request, said: Resumption, now: float) -> None:
    """Begin a request behind what another engine has told of it: its state is what it would be if that had
    been computed here, but for the cache, which it catches up with as after a preemption."""
    for position, token in enumerate(said.token_ids):
        _add(request, token, "target", None if request.params.logprobs is None else said.logprobs[position])
    _increment(request, 0, 0, 0, now)  # what it would tell was told


def abort(request: Request, now: float) -> Increment:
    """End a request from outside."""
    request.finish_reason = "abort"
    return _increment(request, 0, 0, 0, now)


def fail(request: Request, now: float) -> Increment:
    """End a request that its own step broke. Its text is left alone: that may be what broke it."""
    request.finish_reason, request.error, request.finished_time = "error", INTERNAL_ERROR, now
    return Increment(request.id, request.index, (), (), 0, 0, "error", None)


def _increment(
    request: Request, added: int, drafted: int, accepted: int, now: float, draft: Drafted | None = None
) -> Increment:
    finished = request.finish_reason is not None
    if finished:
        request.finished_time = now
        request.text.finish()
    return Increment(
        request_id=request.id,
        index=request.index,
        token_ids=tuple(request.tokens[len(request.tokens) - added :]),
        pieces=request.text.release(finished=finished),
        drafted=drafted,
        accepted=accepted,
        finish_reason=request.finish_reason,
        stop_reason=request.stop_reason,
        logprobs=_last(request.logprobs, added) if request.params.logprobs is not None else None,
        draft=draft,
    )


def _drafted(judged: Judged, first: int) -> Drafted:
    draft = judged.draft
    sources = tuple(source - 1 if source else None for source in draft.sources)
    return Drafted(first, sources, draft.tokens[: draft.depth], draft.chances)


def _last(logprobs: Sequence[Logprobs], count: int) -> tuple[Logprobs, ...]:
    return tuple(logprobs[len(logprobs) - count :])


def _origins(judged: Judged) -> Sequence[Origin]:
    accepted = judged.verdict.accepted
    origins: list[Origin] = ["draft"] * accepted
    if not judged.draft.tokens:
        origins.append("target")
    else:
        last = judged.verdict.path[-1] if judged.verdict.path else accepted - 1
        origins.append("bonus" if accepted and judged.draft.is_last(last) else "correction")
    return origins[: len(judged.verdict.tokens)]


def _add(request: Request, token: int, origin: Origin, logprobs: Logprobs | None) -> None:
    """Add a token and what it changes. logprobs: where the request asks for them."""
    request.tokens.append(token)
    if logprobs is not None:
        request.logprobs.append(logprobs)
        request.cumulative_logprob += logprobs[token].logprob
    _add_text(request, token, origin)


def _add_text(request: Request, token: int, origin: Origin) -> None:
    """Add a token's text, and finish the request if the token or its text ends the output."""
    params = request.params
    may_end = request.num_output > params.min_tokens
    ends = may_end and token in request.stop_tokens
    found = request.text.push(
        token,
        origin,
        silent=(ends and not params.include_stop_str_in_output) or not params.detokenize,
        stops=may_end,
    )
    if ends:
        request.finish_reason = "stop"
        request.stop_reason = token if token in params.stop_token_ids else None
    elif found is not None:
        request.finish_reason, request.stop_reason = "stop", found
    elif len(request.tokens) >= request.max_length:
        request.finish_reason = "length"


def _add_prompt_logprobs(
    request: Request, judged: Judged, computed: int, decode: Callable[[int], str]
) -> None:
    """Row i of the chunk predicts the token after it; the first token of a prompt is predicted by none."""
    count = request.params.prompt_logprobs or 0
    if not request.prompt_logprobs:
        request.prompt_logprobs.append(None)
    first = request.table.filled
    for position in range(len(request.prompt_logprobs), min(computed + 1, request.prompt_length)):
        row, token = position - 1 - first, request.tokens[position]
        request.prompt_logprobs.append(_logprobs(judged, row, token, count, decode))


def _logprobs(judged: Judged, row: int, token: int, count: int, decode: Callable[[int], str]) -> Logprobs:
    """`token`, and the `count` likeliest tokens in order, before sampling parameters."""
    assert judged.rows is not None, "logits are kept where they are to be looked at"
    ranked = judged.rows.ranked(row, token, count)
    return {one.token: Logprob(one.logprob, one.rank, decode(one.token)) for one in ranked}
