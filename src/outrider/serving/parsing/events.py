"""The events that a sequence's text is told in, and the message that they come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class CallBegins:
    """A call of a tool. index: of the call in its message, from 0; id: by which a tool's result names it."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Event = Reasoning | Content | CallBegins | CallArguments


class Parser(Protocol):
    """Reads one sequence's text, in pieces of any size."""

    def feed(self, text: str) -> list[Event]:
        """What is certain once this piece has come."""

    def finish(self) -> list[Event]:
        """What was held back until the end of the text."""


class PlainText:
    """A parser for text in which nothing is looked for."""

    def feed(self, text: str) -> list[Event]:
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        return []


@dataclass(frozen=True)
class ToolCall:
    """arguments: a JSON text, which is cut off where the output was."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """A whole message of an assistant's. Texts are empty where there is nothing of the kind."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


def message_of(events: Iterable[Event]) -> Said:
    """The message that events come to, in whatever pieces they tell it."""
    content: list[str] = []
    reasoning: list[str] = []
    begun: list[CallBegins] = []
    arguments: list[list[str]] = []
    for event in events:
        match event:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegins():
                begun.append(event)
                arguments.append([])
            case CallArguments(index, text):
                arguments[index].append(text)
    calls = (ToolCall(b.id, b.name, "".join(text)) for b, text in zip(begun, arguments, strict=True))
    return Said("".join(content), "".join(reasoning), tuple(calls))


def together(events: Iterable[Event]) -> list[Event]:
    """The same in as few events as can be: neighbours that tell pieces of one text are one."""
    merged: list[Event] = []
    for event in events:
        match merged[-1:], event:
            case [Content(before)], Content(text):
                merged[-1] = Content(before + text)
            case [Reasoning(before)], Reasoning(text):
                merged[-1] = Reasoning(before + text)
            case [CallArguments(same, before)], CallArguments(index, text) if same == index:
                merged[-1] = CallArguments(index, before + text)
            case _:
                merged.append(event)
    return merged
