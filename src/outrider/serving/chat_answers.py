"""The answers of /v1/chat/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outrider.outputs import RequestOutput
from outrider.serving.answers import Asked, ChoicesAnswer, Ended, Released
from outrider.serving.framing import Form
from outrider.serving.logprobs import chat_logprobs
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning, ToolCall
from outrider.serving.replies import prompt_logprobs_of, with_optional
from outrider.serving.requests import ChatRequest


def finish_reason(released: Released, *, called: bool, forced: bool) -> str | None:
    """OpenAI's reason for the end of a sequence. called: whether it calls tools; forced: whether a tool was
    named in the request. What ended in the middle of a call has the engine's reason."""
    ended = released.finish_reason == "stop" and not isinstance(released.stop_reason, str)
    return "tool_calls" if called and ended and not forced else released.finish_reason


class ChatAnswer(ChoicesAnswer):
    kind = ("chat.completion", "chat.completion.chunk")
    prefix = "chatcmpl"
    _body: ChatRequest

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._called: set[int] = set()
        """Sequences that call a tool."""

    def opening(self) -> list[Form]:
        first = {"delta": {"role": "assistant", "content": ""}, "logprobs": None}
        return [
            self._chunk([self._choice_head(index, Released()) | first])
            for index in range(self._asked.per_prompt)
        ]

    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        if any(isinstance(event, CallBegins) for event in events):
            self._called.add(index)
        reason = finish_reason(released, called=index in self._called, forced=self._body.names_a_tool)
        if not (events or reason or released.logprobs or released.trace or self._body.return_token_ids):
            return []
        *deltas, last = [_delta(event) for event in events] or [{}]
        # What is told of tokens goes with the last of their chunks, since an event is of several tokens.
        chunks = [self._delta_choice(index, delta, Released()) for delta in deltas]
        chunks.append(self._delta_choice(index, last, replace(released, finish_reason=reason)))
        return [self._chunk([choice]) for choice in chunks]

    def _delta_choice(self, index: int, delta: Form, released: Released) -> Form:
        return {**self._choice_head(index, released), "delta": delta, "logprobs": self._logprobs(released)}

    def _choice(self, ended: Ended) -> Form:
        said = ended.said
        reason = finish_reason(ended.released, called=bool(said.calls), forced=self._body.names_a_tool)
        message = with_optional(
            {"role": "assistant", "content": said.content, "refusal": None},
            reasoning_content=said.reasoning or None,
            reasoning=said.reasoning or None,
            tool_calls=[_call(call) for call in said.calls] or None,
        )
        if said.calls and not said.content:
            message["content"] = None
        released = replace(ended.released, finish_reason=reason)
        return {
            **self._choice_head(ended.index, released),
            "message": message,
            "logprobs": self._logprobs(released),
        }

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


def _delta(event: Event) -> Form:
    match event:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text, "reasoning": text}
        case CallBegins(index, id, name):
            begun = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [{"index": index, **begun}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _call(call: ToolCall) -> Form:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
