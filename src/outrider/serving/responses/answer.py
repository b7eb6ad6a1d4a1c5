"""The answers of /v1/responses."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from outrider.outputs import RequestOutput
from outrider.serving.answers import Asked, Released
from outrider.serving.errors import as_api_error
from outrider.serving.framing import NAMED, Form
from outrider.serving.parsing.events import Event
from outrider.serving.responses.bodies import ResponsesRequest
from outrider.serving.responses.output import Output
from outrider.serving.single import SingleAnswer

ECHOED = ("instructions", "max_output_tokens", "previous_response_id", "user", "metadata")
"""Fields of the request that stand in the response as they were given."""


class ResponsesAnswer(SingleAnswer):
    """given: the request itself; keep: is told the response once it is whole, if it is to be kept."""

    framing = NAMED

    def __init__(self, asked: Asked, given: ResponsesRequest, keep: Callable[[Form], None] | None) -> None:
        super().__init__(asked)
        self._keep = keep
        self._output = Output()
        self._reason: str | None = None
        self._number = -1
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}",  # the request's own id may be of the client's choice
            "object": "response",
            "created_at": asked.created,
            "model": asked.model,
            "background": False,
            "parallel_tool_calls": given.parallel_tool_calls is not False,
            "store": given.store is not False,
            "temperature": asked.params.temperature,
            "top_p": asked.params.top_p,
            "top_logprobs": given.top_logprobs or 0,
            "truncation": "disabled",
            **_settings(given),
            **{name: getattr(given, name) for name in ECHOED},
        }

    def opening(self) -> list[Form]:
        response = self._response("in_progress", None)
        return self._numbered(
            [
                {"type": "response.created", "response": response},
                {"type": "response.in_progress", "response": response},
            ]
        )

    def closing(self, outputs: list[RequestOutput]) -> list[Form]:
        response = self.final(outputs)
        return self._numbered([{"type": f"response.{response['status']}", "response": response}])

    def failure(self, error: Exception) -> Form:
        told = as_api_error(error)
        code = "rate_limit_exceeded" if told.status == 429 else "server_error"
        message = told.body()["error"]["message"]
        response = {**self._response("failed", None), "error": {"code": code, "message": message}}
        (form,) = self._numbered([{"type": "response.failed", "response": response}])
        return form

    def final(self, outputs: list[RequestOutput]) -> Form:
        response = self._response(_status(self._reason), _usage(outputs))
        if self._keep is not None:
            self._keep(response)
        return response

    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        forms = list(self._output.feed(events, self._logprobs_of(released)))
        if released.finish_reason is not None:
            self._reason = released.finish_reason
            forms += self._output.close(_status(self._reason))
        return self._numbered(forms)

    def _numbered(self, forms: Sequence[Form]) -> list[Form]:
        first = self._number + 1
        self._number += len(forms)
        return [{**form, "sequence_number": number} for number, form in enumerate(forms, first)]

    def _response(self, status: str, usage: Any) -> Form:
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": incomplete,
            "output": list(self._output.items),
            "usage": usage,
        }


def _status(finish_reason: str | None) -> str:
    return "incomplete" if finish_reason == "length" else "completed"


def _settings(given: ResponsesRequest) -> Form:
    """Objects of the request that stand in the response with all their fields."""
    wanted = None if given.text is None else given.text.format
    format_ = {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)
    choice = given.tool_choice or "auto"
    effort = None if given.reasoning is None else given.reasoning.effort
    return {
        "tools": [tool.model_dump() for tool in given.tools or ()],
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "text": {"format": format_, "verbosity": "medium"},
        "reasoning": {"effort": effort, "summary": None},
    }


def _usage(outputs: list[RequestOutput]) -> Form:
    (output,) = outputs
    prompt, generated = len(output.prompt_token_ids), len(output.outputs[0].token_ids)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": output.num_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + generated,
    }
