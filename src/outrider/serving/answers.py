"""How the outputs of one call are told to a client, whole or chunk by chunk, in either of OpenAI's forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.engine.generation import TextPrompt
from outrider.outputs import CompletionOutput, Increment, Logprobs, RequestOutput
from outrider.serving.logprobs import chat_logprobs, completion_logprobs
from outrider.serving.replies import metrics_of, prompt_logprobs_of, usage_of, with_optional
from outrider.serving.requests import ChatRequest, CompletionRequest, Sampling
from outrider.serving.traces import SpeculationTrace, Tracer


@dataclass(frozen=True)
class Released:
    """Tokens of one sequence whose text is no longer held back, and what else is known of them by now."""

    token_ids: Sequence[int]
    text: str
    logprobs: Sequence[Logprobs] | None
    finish_reason: str | None
    stop_reason: int | str | None
    trace: SpeculationTrace | None = None


def whole(completion: CompletionOutput) -> Released:
    """A sequence that has ended."""
    return Released(
        completion.token_ids,
        completion.text,
        completion.logprobs,
        completion.finish_reason,
        completion.stop_reason,
    )


class Answer(ABC):
    """One call's answer. kind: what the whole and what a chunk calls itself; prefix: of the ids; tracer: if
    the drafts are to be told."""

    kind: tuple[str, str]
    prefix: str

    def __init__(
        self,
        request_id: str,
        created: int,
        model: str,
        body: Sampling,
        per_prompt: int,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._head = {"id": f"{self.prefix}-{request_id}", "created": created, "model": model}
        self._body = body
        self._per_prompt = per_prompt
        self._waiting: defaultdict[int, list[Logprobs]] = defaultdict(list)  # for their tokens' text

    def whole(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        """The answer in one."""
        choices = [
            self._choice(number * self._per_prompt + completion.index, whole(completion), output)
            for number, output in enumerate(outputs)
            for completion in output.outputs
        ]
        form = {**self._head, "object": self.kind[0], "choices": choices, "usage": self._usage(outputs)}
        return with_optional(form, **self._extras(outputs))

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first token."""
        return []

    def chunk(self, number: int, increment: Increment) -> dict[str, Any] | None:
        """What a step added to the prompt of this number; None where there is nothing to tell yet."""
        index = number * self._per_prompt + increment.index
        waiting = self._waiting[index]
        waiting += increment.logprobs or ()
        if self._tracer is not None:
            self._tracer.add(index, increment)
        if not increment.pieces and increment.finish_reason is None:
            return None
        logprobs = None if increment.logprobs is None else waiting[: len(increment.pieces)]
        del waiting[: len(increment.pieces)]
        tokens = [piece.token_id for piece in increment.pieces]
        released = Released(
            tokens,
            increment.text,
            logprobs,
            increment.finish_reason,
            increment.stop_reason,
            None if self._tracer is None else self._tracer.take(index, increment.pieces),
        )
        return self._chunk([self._chunk_choice(index, released)])

    def closing(self, outputs: list[RequestOutput]) -> dict[str, Any] | None:
        """The chunk after the last token, if one was asked for."""
        if not (self._body.include_usage or self._body.speculation_metrics):
            return None
        usage = {"usage": self._usage(outputs)} if self._body.include_usage else {}
        return with_optional({**self._chunk([]), **usage}, metrics=self._metrics(outputs))

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self._head, "object": self.kind[1], "choices": choices, **usage}

    def _choice_head(self, index: int, released: Released) -> dict[str, Any]:
        token_ids = list(released.token_ids) if self._body.return_token_ids else None
        head = {
            "index": index,
            "finish_reason": released.finish_reason,
            "stop_reason": released.stop_reason,
        }
        return with_optional(head, token_ids=token_ids, speculation_trace=released.trace)

    def _usage(self, outputs: list[RequestOutput]) -> Any:
        return usage_of(outputs)

    def _metrics(self, outputs: list[RequestOutput]) -> Any:
        return metrics_of(outputs) if self._body.speculation_metrics else None

    def _extras(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        """Fields of the whole answer that are there on request."""
        return {"metrics": self._metrics(outputs)}

    @abstractmethod
    def _choice(self, index: int, released: Released, output: RequestOutput) -> dict[str, Any]:
        """One whole sequence."""

    @abstractmethod
    def _chunk_choice(self, index: int, released: Released) -> dict[str, Any]:
        """What was added to one."""


class ChatAnswer(Answer):
    """Of /v1/chat/completions."""

    kind = ("chat.completion", "chat.completion.chunk")
    prefix = "chatcmpl"
    _body: ChatRequest

    def opening(self) -> list[dict[str, Any]]:
        nothing = Released((), "", None, None, None)
        return [
            self._chunk(
                [
                    self._choice_head(index, nothing)
                    | {"delta": {"role": "assistant", "content": ""}, "logprobs": None}
                ]
            )
            for index in range(self._per_prompt)
        ]

    def _choice(self, index: int, released: Released, output: RequestOutput) -> dict[str, Any]:
        message = {"role": "assistant", "content": released.text, "refusal": None}
        return {
            **self._choice_head(index, released),
            "message": message,
            "logprobs": self._logprobs(released),
        }

    def _chunk_choice(self, index: int, released: Released) -> dict[str, Any]:
        delta = {"content": released.text} if released.text or released.finish_reason is None else {}
        return {**self._choice_head(index, released), "delta": delta, "logprobs": self._logprobs(released)}

    def _logprobs(self, released: Released) -> Any:
        if released.logprobs is None:
            return None
        return chat_logprobs(released.token_ids, released.logprobs, self._body.top_logprobs or 0)

    def _extras(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        (output,) = outputs
        return super()._extras(outputs) | {
            "prompt_logprobs": None if output.prompt_logprobs is None else prompt_logprobs_of(output),
            "prompt_token_ids": list(output.prompt_token_ids) if self._body.return_token_ids else None,
        }


class CompletionAnswer(Answer):
    """Of /v1/completions. texts: of the prompts, if they are to be echoed; decode: the text of each token."""

    kind = ("text_completion", "text_completion")
    prefix = "cmpl"
    _body: CompletionRequest

    def __init__(
        self,
        request_id: str,
        created: int,
        model: str,
        body: CompletionRequest,
        per_prompt: int,
        *,
        texts: Sequence[str],
        decode: Callable[[Sequence[int]], list[str]],
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(request_id, created, model, body, per_prompt, tracer)
        self._texts = texts
        self._decode = decode
        self._offsets: defaultdict[int, int] = defaultdict(int)

    def opening(self) -> list[dict[str, Any]]:
        return [
            self._chunk([self._choice_head(index, echoed) | {"text": echoed.text, "logprobs": None}])
            for number, text in enumerate(self._texts)
            for index in range(number * self._per_prompt, (number + 1) * self._per_prompt)
            for echoed in [Released((), text, None, None, None)]
        ]

    def chunk(self, number: int, increment: Increment) -> dict[str, Any] | None:
        if not self._body.scored_only:
            return super().chunk(number, increment)
        if increment.finish_reason is None:
            return None
        nothing = Released((), "", None, increment.finish_reason, None)
        index = number * self._per_prompt + increment.index
        return self._chunk([self._chunk_choice(index, nothing)])

    def _usage(self, outputs: list[RequestOutput]) -> Any:
        return usage_of(outputs, completion=not self._body.scored_only)

    def _choice(self, index: int, released: Released, output: RequestOutput) -> dict[str, Any]:
        tokens, text, logprobs = list(released.token_ids), released.text, list(released.logprobs or ())
        if self._body.scored_only:
            tokens, text, logprobs = [], "", []
        own = Released(tokens, text, None, released.finish_reason, released.stop_reason)
        of: list[Logprobs | None] = [*logprobs]
        if self._body.echo:
            text = self._texts[index // self._per_prompt] + text
            tokens = [*output.prompt_token_ids, *tokens]
            of = [*(output.prompt_logprobs or ()), *of]
        shown = None
        if self._body.logprobs is not None:
            shown = completion_logprobs(tokens, of, self._decode(tokens), 0)
        form = {**self._choice_head(index, own), "text": text, "logprobs": shown}
        asked = self._body.prompt_logprobs is not None
        return with_optional(
            form,
            prompt_logprobs=prompt_logprobs_of(output) if asked else None,
            prompt_token_ids=list(output.prompt_token_ids) if self._body.return_token_ids else None,
        )

    def _chunk_choice(self, index: int, released: Released) -> dict[str, Any]:
        shown = None
        if released.logprobs is not None:
            texts = self._decode(released.token_ids)
            shown = completion_logprobs(released.token_ids, released.logprobs, texts, self._offsets[index])
            self._offsets[index] += sum(map(len, texts))
        return {**self._choice_head(index, released), "text": released.text, "logprobs": shown}


def echoed(prompts: Sequence[TextPrompt], text_of: Callable[[Sequence[int]], str]) -> list[str]:
    """The texts of prompts, also of those that were given as tokens."""
    return [text_of(prompt.token_ids) if prompt.text is None else prompt.text for prompt in prompts]
