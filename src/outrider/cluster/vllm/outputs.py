"""What vLLM tells of a request, as outputs of ours. Text is made here from its tokens, as for our engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from outrider.engine.detokenizer import Detokenizer, OutputText
from outrider.models.tokenizer import Tokenizer
from outrider.outputs import (
    CompletionOutput,
    FinishReason,
    Increment,
    Logprob,
    Logprobs,
    Origin,
    RequestMetrics,
    RequestOutput,
    SpeculationStats,
)
from outrider.params import SamplingParams

REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}
"""vLLM's reasons to end, and ours; any other one is an error of its own."""
FAILED = "vLLM ended this request with an error; the log says more"

Decode = Callable[[int], str]


class VllmSequence:
    """One sequence of a request, which to vLLM is a request of its own.

    id: by which vLLM has it; drafts: how many had so many tokens of which so many stood.
    """

    def __init__(
        self, request_id: str, index: int, prompt: Sequence[int], params: SamplingParams, tokenizer: Tokenizer
    ) -> None:
        self.id = f"{request_id}-{index}"
        self.index = index
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.token_times: list[tuple[float, int]] = []
        self._request_id = request_id
        self._params = params
        detokenizer = Detokenizer(tokenizer, prompt, skip_special_tokens=params.skip_special_tokens)
        self._text = OutputText(detokenizer, params.stop, include_stop=params.include_stop_str_in_output)
        self._logprobs: list[Logprobs] = []
        self._drafts: Counter[tuple[int, int]] = Counter()

    def add(self, told: Any, drafted: int, now: float, decode: Decode) -> Increment:
        """Add what a step of vLLM's told of it. told: vLLM's CompletionOutput, with what is new."""
        tokens: list[int] = list(told.token_ids)
        accepted = min(drafted, max(len(tokens) - 1, 0))
        origins = _origins(len(tokens), accepted, drafted)
        logprobs = [_logprobs(each, decode) for each in told.logprobs or ()]
        added = 0
        for token, origin in zip(tokens, origins, strict=True):
            added += 1
            last = added == len(tokens)
            self._add(token, origin, ends=last and told.finish_reason == "stop")
            if self.finish_reason is not None:
                break
        if added:
            self.token_times.append((now, added))
        logprobs = logprobs[:added]
        self._logprobs += logprobs
        if drafted:
            self._drafts[drafted, accepted] += 1
        if told.finish_reason is not None and self.finish_reason is None:
            self.finish_reason = REASONS.get(told.finish_reason, "error")
        if (exact := getattr(told, "spec_decode_metrics", None)) is not None:
            self._drafts = Counter(zip(exact.per_step_drafted, exact.per_step_accepted, strict=True))
        return self._increment(
            tuple(tokens[:added]), drafted, accepted, tuple(logprobs) if told.logprobs is not None else None
        )

    def end(self, reason: FinishReason) -> Increment:
        """End it where it is."""
        self.finish_reason = reason
        return self._increment((), 0, 0, None)

    def completion(self) -> CompletionOutput:
        with_logprobs = self._params.logprobs is not None
        chosen = zip(self.tokens, self._logprobs, strict=with_logprobs)
        return CompletionOutput(
            index=self.index,
            text=self._text.text,
            token_ids=tuple(self.tokens),
            cumulative_logprob=sum(each[token].logprob for token, each in chosen) if with_logprobs else None,
            logprobs=tuple(self._logprobs) if with_logprobs else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            speculation=SpeculationStats.of_drafts(self._drafts),
        )

    def _add(self, token: int, origin: Origin, *, ends: bool) -> None:
        """Add a token. ends: vLLM stopped at it, since it is the model's end or a stop token."""
        params = self._params
        self.tokens.append(token)
        found = self._text.push(
            token,
            origin,
            silent=(ends and not params.include_stop_str_in_output) or not params.detokenize,
            stops=len(self.tokens) > params.min_tokens,
        )
        if ends:
            self.finish_reason = "stop"
            self.stop_reason = token if token in params.stop_token_ids else None
        elif found is not None:
            self.finish_reason, self.stop_reason = "stop", found

    def _increment(
        self, tokens: tuple[int, ...], drafted: int, accepted: int, logprobs: tuple[Logprobs, ...] | None
    ) -> Increment:
        finished = self.finish_reason is not None
        if finished and not isinstance(self.stop_reason, str):
            self._text.finish()  # a stop string has cut what is behind it
        return Increment(
            request_id=self._request_id,
            index=self.index,
            token_ids=tokens,
            pieces=self._text.release(finished=finished),
            drafted=drafted,
            accepted=accepted,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            logprobs=logprobs,
        )


class VllmRequest:
    """A request that vLLM computes, with all its sequences. inputs: of `vllm.LLMEngine.add_request` for each
    of them."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        inputs: Sequence[Any],
        tokenizer: Tokenizer,
        priority: int,
        now: float,
    ) -> None:
        self.id = request_id
        self.params = params
        self.inputs = inputs
        self.priority = priority
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.sequences = [
            VllmSequence(request_id, index, prompt_token_ids, params, tokenizer) for index in range(params.n)
        ]
        self._prompt_text = prompt
        self._arrival_time = now
        self._first_scheduled_time: float | None = None
        self._finished_time: float | None = None
        self._cached_tokens = 0
        self._prompt_logprobs: list[Logprobs | None] = []

    def prompt(self) -> dict[str, Any]:
        """As vLLM takes it: what its renderer would make of the token ids."""
        salt = {} if self.params.cache_salt is None else {"cache_salt": self.params.cache_salt}
        return {"type": "token", "prompt_token_ids": list(self.prompt_token_ids), **salt}

    @property
    def finished(self) -> bool:
        return all(sequence.finish_reason is not None for sequence in self.sequences)

    def add(self, sequence: VllmSequence, output: Any, drafted: int, now: float, decode: Decode) -> Increment:
        """Add what vLLM told of a sequence. output: vLLM's RequestOutput, with what is new."""
        if sequence.index == 0:
            self._cached_tokens = output.num_cached_tokens or 0
            for each in output.prompt_logprobs or ():
                self._prompt_logprobs.append(None if each is None else _logprobs(each, decode))
            times = output.metrics
            if self._first_scheduled_time is None and times is not None:
                self._first_scheduled_time = self._arrival_time + times.scheduled_ts - times.queued_ts
        return self._watched(sequence.add(output.outputs[0], drafted, now, decode), now)

    def end(self, reason: FinishReason, now: float) -> list[Increment]:
        """End what of it has not ended."""
        running = [sequence for sequence in self.sequences if sequence.finish_reason is None]
        return [self._watched(sequence.end(reason), now) for sequence in running]

    def output(self) -> RequestOutput:
        times = self.sequences[0].token_times
        completions = tuple(sequence.completion() for sequence in self.sequences)
        return RequestOutput(
            request_id=self.id,
            prompt=self._prompt_text,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=None if self.params.prompt_logprobs is None else tuple(self._prompt_logprobs),
            outputs=completions,
            finished=self.finished,
            num_cached_tokens=self._cached_tokens,
            metrics=RequestMetrics(
                arrival_time=self._arrival_time,
                first_scheduled_time=self._first_scheduled_time,
                first_token_time=times[0][0] if times else None,
                last_token_time=times[-1][0] if times else None,
                finished_time=self._finished_time,
                token_times=tuple(times),
            ),
            error=FAILED if any(each.finish_reason == "error" for each in completions) else None,
        )

    def _watched(self, increment: Increment, now: float) -> Increment:
        if self.finished:
            self._finished_time = now
        return increment


def allotted(tokens: Sequence[int], first: Sequence[bool], stats: Any) -> list[int]:
    """How many tokens were drafted for each sequence in a step.

    vLLM tells of a step how many drafts it verified, and of how many tokens, and of a sequence what it
    gained. Whoever gained several tokens had a draft; the others are taken to have had those that are left,
    in order. Of a sequence that vLLM itself ends it tells all in the end, and that is then what counts.

    tokens: that each gained; first: whether a sequence had none before, and so no draft. stats: vLLM's
    SpecDecodingStats of the step; None where nothing was drafted.
    """
    if stats is None or not stats.num_drafts:
        return [0] * len(tokens)
    length = -(-stats.num_draft_tokens // stats.num_drafts)
    left = stats.num_drafts - sum(gained > 1 for gained in tokens)
    drafted = []
    for gained, begins in zip(tokens, first, strict=True):
        had = gained > 1
        if not had and not begins and left > 0:
            had, left = True, left - 1
        drafted.append(max(length, gained - 1) if had else 0)
    return drafted


def _origins(count: int, accepted: int, drafted: int) -> list[Origin]:
    last: Origin = "target" if not drafted else "bonus" if accepted == drafted else "correction"
    return list(chain(["draft"] * accepted, [last] * (count - accepted)))


def _logprobs(told: Mapping[int, Any], decode: Decode) -> Logprobs:
    """One position's. told: vLLM's, by token."""
    return {token: Logprob(one.logprob, one.rank, decode(token)) for token, one in told.items()}
