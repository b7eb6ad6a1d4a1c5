"""The items of a response, and the events of a stream that tell them as they grow."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from outrider.serving.framing import Form
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning


class OpenItem(ABC):
    """An item that grows. prefix: of its id; index: its place in the response's output."""

    prefix: str

    def __init__(self, index: int) -> None:
        self.id = f"{self.prefix}_{uuid.uuid4().hex}"
        self._index = index
        self._text = ""

    def takes(self, event: Event) -> bool:
        """Whether an event goes on with this item."""
        return False

    def grow(self, text: str, logprobs: list[Form]) -> Form:
        """Add to it, and tell that."""
        self._text += text
        return self._event(self._delta(text, logprobs))

    def opening(self) -> Iterator[Form]:
        yield {
            "type": "response.output_item.added",
            "output_index": self._index,
            "item": self._begun(),
        }

    def closing(self, status: str) -> Iterator[Form]:
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def _event(self, form: Form) -> Form:
        return {**form, "item_id": self.id, "output_index": self._index}

    @abstractmethod
    def item(self, status: str) -> Form:
        """As it is by now. status: in_progress, completed or incomplete."""

    def _begun(self) -> Form:
        return self.item("in_progress")

    @abstractmethod
    def _delta(self, text: str, logprobs: list[Form]) -> Form:
        """What is added."""


class _TextItem(OpenItem):
    """An item whose content is one part of text."""

    part_event: str

    def opening(self) -> Iterator[Form]:
        yield from super().opening()
        yield self._event({"type": "response.content_part.added", "content_index": 0, "part": self._part()})

    def closing(self, status: str) -> Iterator[Form]:
        yield self._event(
            {"type": f"{self.part_event}.done", "content_index": 0, "text": self._text, **self._extras()}
        )
        yield self._event({"type": "response.content_part.done", "content_index": 0, "part": self._part()})
        yield from super().closing(status)

    def _delta(self, text: str, logprobs: list[Form]) -> Form:
        return {"type": f"{self.part_event}.delta", "content_index": 0, "delta": text}

    def _extras(self) -> Form:
        return {}

    @abstractmethod
    def _part(self) -> Form:
        """The part as it is by now."""


class _ReasoningItem(_TextItem):
    prefix = "rs"
    part_event = "response.reasoning_text"

    def takes(self, event: Event) -> bool:
        return isinstance(event, Reasoning)

    def item(self, status: str) -> Form:
        return {
            "type": "reasoning",
            "id": self.id,
            "summary": [],
            "content": [self._part()],
            "encrypted_content": None,
            "status": status,
        }

    def _begun(self) -> Form:
        return {**super()._begun(), "content": []}

    def _part(self) -> Form:
        return {"type": "reasoning_text", "text": self._text}


class _MessageItem(_TextItem):
    prefix = "msg"
    part_event = "response.output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._logprobs: list[Form] = []

    def takes(self, event: Event) -> bool:
        return isinstance(event, Content)

    def item(self, status: str) -> Form:
        return {
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": status,
            "content": [self._part()],
        }

    def _begun(self) -> Form:
        return {**super()._begun(), "content": []}

    def _delta(self, text: str, logprobs: list[Form]) -> Form:
        self._logprobs += logprobs
        return {**super()._delta(text, logprobs), "logprobs": logprobs}

    def _extras(self) -> Form:
        return {"logprobs": list(self._logprobs)}

    def _part(self) -> Form:
        return {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


class _CallItem(OpenItem):
    prefix = "fc"

    def __init__(self, index: int, call: CallBegins) -> None:
        super().__init__(index)
        self._call = call

    def takes(self, event: Event) -> bool:
        return isinstance(event, CallArguments) and event.index == self._call.index

    def closing(self, status: str) -> Iterator[Form]:
        yield self._event(
            {
                "type": "response.function_call_arguments.done",
                "name": self._call.name,
                "arguments": self._text,
            }
        )
        yield from super().closing(status)

    def item(self, status: str) -> Form:
        return {
            "type": "function_call",
            "id": self.id,
            "call_id": self._call.id,
            "name": self._call.name,
            "arguments": self._text,
            "status": status,
        }

    def _delta(self, text: str, logprobs: list[Form]) -> Form:
        return {"type": "response.function_call_arguments.delta", "delta": text}


class Output:
    """The output of one response. Whole and streamed come of the same events."""

    def __init__(self) -> None:
        self.items: list[Form] = []
        """Those that have ended."""
        self._open: OpenItem | None = None

    def feed(self, events: Iterable[Event], logprobs: list[Form]) -> Iterator[Form]:
        """What a stream tells of these events. logprobs: of the tokens that they come from."""
        for event in events:
            if self._open is None or not self._open.takes(event):
                yield from self.close("completed")
                self._open = self._begin(event)
                yield from self._open.opening()
            if not isinstance(event, CallBegins):
                yield self._open.grow(event.text, logprobs if isinstance(event, Content) else [])
                logprobs = [] if isinstance(event, Content) else logprobs

    def close(self, status: str) -> Iterator[Form]:
        """End the item that is open, if there is one."""
        if self._open is not None:
            yield from self._open.closing(status)
            self.items.append(self._open.item(status))
            self._open = None

    def _begin(self, event: Event) -> OpenItem:
        match event:
            case Reasoning():
                return _ReasoningItem(len(self.items))
            case Content():
                return _MessageItem(len(self.items))
            case CallBegins():
                return _CallItem(len(self.items), event)
            case CallArguments():
                raise ValueError(f"the arguments of call {event.index} come before the call, or too late")
