"""From the increments of a request to the outputs that a caller of vLLM's API reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from outrider.outputs import (
    CompletionOutput,
    Increment,
    Logprobs,
    RequestMetrics,
    RequestOutput,
    SpeculationStats,
)
from outrider.params import RequestOutputKind, SamplingParams


@dataclass
class _Told:
    """What of one sequence has come so far."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    speculation: SpeculationStats = field(default_factory=SpeculationStats)
    last: Increment | None = None

    def add(self, increment: Increment) -> None:
        self.text += increment.text
        self.token_ids += increment.token_ids
        self.logprobs += increment.logprobs or ()
        self.speculation += SpeculationStats.of_draft(increment.drafted, increment.accepted)
        self.last = increment


class OutputStream:
    """The outputs of one request, each as `params.output_kind` says.

    Those before the last one have no log-probabilities of the prompt, no times but that of arrival, and no
    number of cached tokens: these come with the last. Text is held back while it might belong to a stop
    string.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        arrival_time: float,
    ) -> None:
        self._kind = params.output_kind
        self._with_logprobs = params.logprobs is not None
        self._told = [_Told() for _ in range(params.n)]
        self._ended: set[int] = set()
        self._begun = RequestOutput(
            request_id=request_id,
            prompt=prompt,
            prompt_token_ids=tuple(prompt_token_ids),
            prompt_logprobs=None,
            outputs=(),
            finished=False,
            num_cached_tokens=0,
            metrics=RequestMetrics(arrival_time, None, None, None, None, ()),
        )

    def add(self, increments: Sequence[Increment]) -> RequestOutput | None:
        """What a step gives to read, if anything. What ends the request is told by the last output."""
        self._ended |= {increment.index for increment in increments if increment.finish_reason is not None}
        if len(self._ended) == len(self._told):
            return None
        before = [(len(told.text), len(told.token_ids)) for told in self._told]
        for increment in increments:
            self._told[increment.index].add(increment)
        if self._kind is RequestOutputKind.FINAL_ONLY or not any(i.token_ids for i in increments):
            return None
        whole = [self._completion(index, told) for index, told in enumerate(self._told)]
        if self._kind is RequestOutputKind.CUMULATIVE:
            return replace(self._begun, outputs=tuple(whole))
        fresh = {increment.index for increment in increments}
        return replace(self._begun, outputs=tuple(_rest(whole[n], *before[n]) for n in sorted(fresh)))

    def last(self, output: RequestOutput) -> RequestOutput:
        """The last one, of a request that has ended with this output."""
        outputs = output.outputs
        if self._kind is RequestOutputKind.DELTA:
            came = [(len(told.text), len(told.token_ids)) for told in self._told]
            outputs = tuple(_rest(completion, *came[completion.index]) for completion in outputs)
        return replace(output, request_id=self._begun.request_id, outputs=outputs)

    def _completion(self, index: int, told: _Told) -> CompletionOutput:
        each = zip(told.token_ids, told.logprobs, strict=self._with_logprobs)
        return CompletionOutput(
            index=index,
            text=told.text,
            token_ids=tuple(told.token_ids),
            cumulative_logprob=sum(found[token].logprob for token, found in each)
            if self._with_logprobs
            else None,
            logprobs=tuple(told.logprobs) if self._with_logprobs else None,
            finish_reason=told.last.finish_reason if told.last else None,
            stop_reason=told.last.stop_reason if told.last else None,
            speculation=told.speculation,
        )


def _rest(completion: CompletionOutput, characters: int, tokens: int) -> CompletionOutput:
    """The completion without what came before."""
    logprobs = completion.logprobs
    return replace(
        completion,
        text=completion.text[characters:],
        token_ids=completion.token_ids[tokens:],
        logprobs=None if logprobs is None else logprobs[tokens:],
    )
