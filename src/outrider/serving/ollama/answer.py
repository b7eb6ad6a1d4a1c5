"""The answers of /api/chat and /api/generate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pydantic_core import from_json

from outrider.outputs import RequestMetrics, RequestOutput
from outrider.serving.answers import Asked, Released
from outrider.serving.errors import as_api_error, ollama_form
from outrider.serving.framing import LINES, Form
from outrider.serving.parsing.events import (
    CallArguments,
    CallBegins,
    Content,
    Event,
    Reasoning,
    Said,
    ToolCall,
)
from outrider.serving.replies import with_optional
from outrider.serving.single import SingleAnswer, single

NANOSECONDS = 10**9


def moment(seconds: float) -> str:
    """A time since 1970, as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class OllamaAnswer(SingleAnswer):
    """Lines of JSON, the last of which says that it is, and what was counted."""

    framing = LINES

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._head = {"model": asked.model, "created_at": moment(asked.created)}
        self._said: list[Said] = []
        self._logprobs: list[Form] = []
        self._call: CallBegins | None = None
        """One that has not ended: Ollama tells calls as a whole."""
        self._arguments = ""
        self._reason: str | None = None

    def closing(self, outputs: list[RequestOutput]) -> list[Form]:
        return [self._last(Said(), outputs)]

    def failure(self, error: Exception) -> Form:
        return dict(ollama_form(as_api_error(error)))

    def final(self, outputs: list[RequestOutput]) -> Form:
        said = Said(
            "".join(piece.content for piece in self._said),
            "".join(piece.reasoning for piece in self._said),
            tuple(call for piece in self._said for call in piece.calls),
        )
        return with_optional(self._last(said, outputs), logprobs=self._logprobs or None)

    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        logprobs = self._logprobs_of(released)
        self._logprobs += logprobs
        pieces = list(self._pieces(events))
        if released.finish_reason is not None:
            pieces += self._ended_call()
            self._reason = released.finish_reason
        if logprobs and not pieces:
            pieces = [Said()]
        self._said += pieces
        forms = [{**self._head, **self._form(piece), "done": False} for piece in pieces]
        if logprobs:
            forms[-1]["logprobs"] = logprobs
        return forms

    def _pieces(self, events: Iterable[Event]) -> Iterator[Said]:
        for event in events:
            if isinstance(event, CallArguments):
                self._arguments += event.text
                continue
            yield from self._ended_call()
            match event:
                case Content(text):
                    yield Said(content=text)
                case Reasoning(text):
                    yield Said(reasoning=text)
                case CallBegins():
                    self._call = event

    def _ended_call(self) -> Iterator[Said]:
        if self._call is not None:
            call = ToolCall(self._call.id, self._call.name, self._arguments)
            self._call, self._arguments = None, ""
            yield Said(calls=(call,))

    def _last(self, said: Said, outputs: list[RequestOutput]) -> Form:
        output, completion = single(outputs)
        return {
            **self._head,
            **self._form(said),
            "done": True,
            "done_reason": "length" if self._reason == "length" else "stop",
            "prompt_eval_count": len(output.prompt_token_ids),
            "eval_count": len(completion.token_ids),
            **_durations(output.metrics),
        }

    @abstractmethod
    def _form(self, said: Said) -> Form:
        """Where a piece of the answer, or all of it, stands in a line."""


class ChatLines(OllamaAnswer):
    """The lines of /api/chat."""

    def _form(self, said: Said) -> Form:
        calls = [
            {"id": call.id, "function": {"index": n, "name": call.name, "arguments": _object(call.arguments)}}
            for n, call in enumerate(said.calls)
        ]
        message: Form = {"role": "assistant", "content": said.content}
        return {"message": with_optional(message, thinking=said.reasoning or None, tool_calls=calls or None)}


class GenerateLines(OllamaAnswer):
    """The lines of /api/generate, which offers no tools."""

    def _form(self, said: Said) -> Form:
        return with_optional({"response": said.content}, thinking=said.reasoning or None)


def _object(arguments: str) -> Form:
    """The arguments of a call; those that `num_predict` has cut off, as far as they came."""
    form: Form = from_json(arguments or "{}", allow_partial=True)
    return form


def _durations(metrics: RequestMetrics) -> Form:
    """Nanoseconds, at least one each: clients divide by them. Nothing is loaded for a request."""
    begin = metrics.arrival_time
    first = metrics.first_token_time or begin
    last = metrics.last_token_time or first
    end = metrics.finished_time or last
    spans = {"total": end - begin, "load": 0.0, "prompt_eval": first - begin, "eval": last - first}
    return {f"{name}_duration": max(1, round(span * NANOSECONDS)) for name, span in spans.items()}
