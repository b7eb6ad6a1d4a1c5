"""The state of one generated sequence, and of the request that it belongs to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from outrider.cache.table import BlockTable
from outrider.engine.detokenizer import OutputText
from outrider.outputs import (
    CompletionOutput,
    FinishReason,
    Logprobs,
    RequestMetrics,
    RequestOutput,
    SpeculationStats,
)
from outrider.params import SamplingParams
from outrider.sampling.sampler import Sampler
from outrider.verification.noise import Noise


@dataclass(eq=False)
class Request:
    """One sequence being generated; changed by `commit` alone.

    tokens: prompt and output; table: its K/V cache, whose `filled` says how many tokens are computed; turn:
    when it came, moved by its priority: who has the earlier one is served first; drafts: how many had so many
    tokens of which so many stood.
    """

    id: str
    index: int
    prompt_length: int
    tokens: list[int]
    params: SamplingParams
    sampler: Sampler
    noise: Noise
    stop_tokens: frozenset[int]
    max_length: int
    table: BlockTable
    text: OutputText
    arrival_time: float
    turn: float
    cached_tokens: int | None = None
    first_scheduled_time: float | None = None
    finished_time: float | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    logprobs: list[Logprobs] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    prompt_logprobs: list[Logprobs | None] = field(default_factory=list)
    drafts: Counter[tuple[int, int]] = field(default_factory=Counter)
    token_times: list[tuple[float, int]] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Known tokens that are not computed yet. One, in the middle of decoding."""
        return len(self.tokens) - self.table.filled

    @property
    def room(self) -> int:
        """Tokens that may still be drafted: the target adds one of its own to every draft."""
        room = self.max_length - len(self.tokens) - 1
        return room if room > 0 else 0

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether logits of prompt rows are still needed."""
        return self.params.prompt_logprobs is not None and len(self.prompt_logprobs) < self.prompt_length

    def completion(self) -> CompletionOutput:
        with_logprobs = self.params.logprobs is not None
        return CompletionOutput(
            index=self.index,
            text=self.text.text,
            token_ids=tuple(self.output),
            cumulative_logprob=self.cumulative_logprob if with_logprobs else None,
            logprobs=tuple(self.logprobs) if with_logprobs else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            speculation=SpeculationStats.of_drafts(self.drafts),
        )


@dataclass(frozen=True)
class RequestGroup:
    """The `n` sequences that one call asked for."""

    prompt: str | None
    requests: tuple[Request, ...]

    @property
    def id(self) -> str:
        return self.requests[0].id

    @property
    def finished(self) -> bool:
        return all(request.finish_reason is not None for request in self.requests)

    def output(self) -> RequestOutput:
        first = self.requests[0]
        ends = [r.finished_time for r in self.requests if r.finished_time is not None]
        times = first.token_times
        return RequestOutput(
            request_id=first.id,
            prompt=self.prompt,
            prompt_token_ids=tuple(first.tokens[: first.prompt_length]),
            prompt_logprobs=None if first.params.prompt_logprobs is None else tuple(first.prompt_logprobs),
            outputs=tuple(request.completion() for request in self.requests),
            finished=self.finished,
            num_cached_tokens=first.cached_tokens or 0,
            metrics=RequestMetrics(
                arrival_time=first.arrival_time,
                first_scheduled_time=first.first_scheduled_time,
                first_token_time=times[0][0] if times else None,
                last_token_time=times[-1][0] if times else None,
                finished_time=max(ends) if self.finished else None,
                token_times=tuple(times),
            ),
            error=next((r.error for r in self.requests if r.error is not None), None),
        )
