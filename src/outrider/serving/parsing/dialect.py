"""What a model's answer consists of: reasoning, text and calls, read and bound together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps
from outrider.serving.parsing.thinking import State, Thinking


@dataclass(frozen=True)
class Expected:
    """What an answer may be. use: of tools, None for none; thinking: how the prompt leaves the model."""

    use: ToolUse | None
    thinking: State

    @property
    def calls(self) -> ToolUse | None:
        """The use of tools, if any may be called."""
        return self.use if self.use is not None and self.use.mode != "none" else None


class Dialect(ABC):
    """A model's way of answering."""

    tools: ToolFormat

    @abstractmethod
    def state(self, prompt: str) -> State:
        """How a prompt leaves the model."""

    @abstractmethod
    def is_plain(self, expected: Expected) -> bool:
        """Whether such an answer is text and nothing else, so that there is nothing to read in it."""

    @abstractmethod
    def read(self, reader: Reader, expected: Expected) -> Steps[None]:
        """Read an answer."""

    @abstractmethod
    def start(self, lark: Lark, expected: Expected, answer: str | None) -> str:
        """The grammar of an answer. answer: the rule that its text has to fit, None for any text."""

    @abstractmethod
    def shown(self, expected: Expected) -> tuple[str, ...]:
        """The marks that have to be seen in a text to read it."""


@dataclass(frozen=True)
class Tagged(Dialect):
    """Reasoning between marks, if the model has some, and calls in a form of their own."""

    tools: ToolFormat
    thinking: Thinking | None

    def state(self, prompt: str) -> State:
        return "closed" if self.thinking is None else self.thinking.state(prompt)

    def is_plain(self, expected: Expected) -> bool:
        return expected.calls is None and expected.thinking == "closed"

    def shown(self, expected: Expected) -> tuple[str, ...]:
        calls = self.tools.tokens if expected.calls else ()
        return calls if self.thinking is None else (*calls, self.thinking.begin.strip(), self.thinking.end)

    def read(self, reader: Reader, expected: Expected) -> Steps[None]:
        if self.thinking is not None:
            yield from self.thinking.read(reader, expected.thinking)
        if expected.calls is not None:
            yield from self.tools.read(reader, expected.calls)

    def start(self, lark: Lark, expected: Expected, answer: str | None) -> str:
        thinking = self.thinking
        if thinking is None or expected.thinking == "closed":
            return self._body(lark, expected.use, answer, ())
        thought = lark.text_through(thinking.end, without=(thinking.end,))
        thought = f"{thought} {lark.terminal(BLANK)}?"
        if expected.thinking == "open":
            return f"{thought} {self._body(lark, expected.use, answer, ())}"
        body = self._body(lark, expected.use, answer, (thinking.begin,))
        return f"({lark.literal(thinking.begin)} {thought})? {body}"

    def _body(self, lark: Lark, use: ToolUse | None, answer: str | None, not_first: tuple[str, ...]) -> str:
        """What follows reasoning."""
        marks = () if use is None else self.tools.marks(use)
        without, at_first = (marks, not_first) if self.tools.anywhere else ((), (*not_first, *marks))
        text = lark.text(without=without, not_first=at_first) if answer is None else answer
        if use is None or use.mode == "none":
            return text
        after = {mark: self.tools.after(lark, use, mark) for mark in marks}
        alone = [f"{lark.literal(mark)} {calls}" for mark, calls in after.items()]
        if use.mode == "required":
            return lark.one_of(alone)
        if answer is not None or not self.tools.anywhere:
            return lark.one_of([text, *alone])
        led = (
            f"{lark.text_through(mark, without=marks, not_first=not_first)} {calls}"
            for mark, calls in after.items()
        )
        return lark.one_of([text, *led])


BLANK = r"/\n{1,2}/"
