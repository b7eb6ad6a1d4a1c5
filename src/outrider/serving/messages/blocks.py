"""The content blocks of a message, and the events of a stream that tell them as they grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from pydantic_core import from_json

from outrider.serving.framing import Form
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning


class OpenBlock(ABC):
    """A block that grows."""

    def __init__(self) -> None:
        self._text = ""

    @abstractmethod
    def takes(self, event: Event) -> bool:
        """Whether an event goes on with this block."""

    def grow(self, text: str) -> Form:
        """Add to it, and say what was added."""
        self._text += text
        return self._delta(text)

    @abstractmethod
    def block(self) -> Form:
        """As it is by now."""

    def last_delta(self) -> list[Form]:
        """What is added to it in the end, whatever the model said."""
        return []

    @abstractmethod
    def _delta(self, text: str) -> Form:
        """What is added."""


class _Text(OpenBlock):
    def takes(self, event: Event) -> bool:
        return isinstance(event, Content)

    def block(self) -> Form:
        return {"type": "text", "text": self._text, "citations": None}

    def _delta(self, text: str) -> Form:
        return {"type": "text_delta", "text": text}


class _Thinking(OpenBlock):
    def takes(self, event: Event) -> bool:
        return isinstance(event, Reasoning)

    def block(self) -> Form:
        return {"type": "thinking", "thinking": self._text, "signature": ""}

    def last_delta(self) -> list[Form]:
        return [{"type": "signature_delta", "signature": ""}]

    def _delta(self, text: str) -> Form:
        return {"type": "thinking_delta", "thinking": text}


class _ToolUse(OpenBlock):
    def __init__(self, call: CallBegins) -> None:
        super().__init__()
        self._call = call

    def takes(self, event: Event) -> bool:
        return isinstance(event, CallArguments) and event.index == self._call.index

    def block(self) -> Form:
        # Arguments that `max_tokens` has cut off are told as far as they came.
        arguments = from_json(self._text or "{}", allow_partial=True)
        return {"type": "tool_use", "id": self._call.id, "name": self._call.name, "input": arguments}

    def _delta(self, text: str) -> Form:
        return {"type": "input_json_delta", "partial_json": text}


class Blocks:
    """The content of one message. Whole and streamed come of the same events."""

    def __init__(self) -> None:
        self.content: list[Form] = []
        """The blocks that have ended."""
        self._open: OpenBlock | None = None

    def feed(self, events: Iterable[Event]) -> Iterator[Form]:
        """What a stream tells of these events."""
        for event in events:
            if self._open is None or not self._open.takes(event):
                yield from self.close()
                self._open = _opened(event)
                yield self._of_block({"type": "content_block_start", "content_block": self._open.block()})
            if not isinstance(event, CallBegins):
                yield self._grown(self._open.grow(event.text))

    def close(self) -> Iterator[Form]:
        """End the block that is open, if there is one."""
        if self._open is not None:
            for delta in self._open.last_delta():
                yield self._grown(delta)
            yield self._of_block({"type": "content_block_stop"})
            self.content.append(self._open.block())
            self._open = None

    def _grown(self, delta: Form) -> Form:
        return self._of_block({"type": "content_block_delta", "delta": delta})

    def _of_block(self, form: Form) -> Form:
        return {**form, "index": len(self.content)}


def _opened(event: Event) -> OpenBlock:
    match event:
        case Content():
            return _Text()
        case Reasoning():
            return _Thinking()
        case CallBegins():
            return _ToolUse(event)
        case CallArguments():
            raise ValueError(f"the arguments of call {event.index} come before the call, or too late")
