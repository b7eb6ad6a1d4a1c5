"""The answers of /v1/messages."""

from __future__ import annotations

import uuid

from outrider.outputs import RequestOutput
from outrider.serving.answers import Asked, Released
from outrider.serving.errors import anthropic_form, as_api_error
from outrider.serving.framing import NAMED, Form
from outrider.serving.messages.blocks import Blocks
from outrider.serving.parsing.events import CallBegins, Event
from outrider.serving.single import SingleAnswer, single


class MessagesAnswer(SingleAnswer):
    """One message, in blocks."""

    framing = NAMED

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._blocks = Blocks()
        self._called = False
        self._reason: Form = {"stop_reason": None, "stop_sequence": None}
        self._head = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
        }

    def opening(self) -> list[Form]:
        usage = _usage(self._asked.prompt_tokens, 0, 0)
        message = {**self._head, "content": [], **self._reason, "usage": usage}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def closing(self, outputs: list[RequestOutput]) -> list[Form]:
        usage = self.final(outputs)["usage"]
        return [{"type": "message_delta", "delta": self._reason, "usage": usage}, {"type": "message_stop"}]

    def failure(self, error: Exception) -> Form:
        return dict(anthropic_form(as_api_error(error)))

    def final(self, outputs: list[RequestOutput]) -> Form:
        output, completion = single(outputs)
        usage = _usage(len(output.prompt_token_ids), output.num_cached_tokens, len(completion.token_ids))
        return {**self._head, "content": self._blocks.content, **self._reason, "usage": usage}

    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        self._called |= any(isinstance(event, CallBegins) for event in events)
        forms = list(self._blocks.feed(events))
        if released.finish_reason is not None:
            forms += self._blocks.close()
            self._reason = _end(released, called=self._called)
        return forms


def _end(released: Released, *, called: bool) -> Form:
    """Why the message ends."""
    if released.finish_reason == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if isinstance(released.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": released.stop_reason}
    return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}


def _usage(prompt: int, cached: int, generated: int) -> Form:
    """What was read from the prefix cache is not among `input_tokens`."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    }
