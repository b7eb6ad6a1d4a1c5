"""Reasoning between two marks, before the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outrider.serving.parsing.events import Reasoning
from outrider.serving.parsing.reader import Reader, Steps

State = Literal["open", "closed", "free"]


@dataclass(frozen=True)
class Thinking:
    """The marks: before reasoning, of which templates may write a part already, and after it."""

    begin: str
    end: str

    def is_of(self, template: str) -> bool:
        return self.begin.strip() in template and self.end in template

    def state(self, prompt: str) -> State:
        """Whether a prompt leaves the model in the middle of reasoning, after it, or free to begin."""
        prompt = prompt.rstrip()
        if prompt.endswith(self.begin.strip()):
            return "open"
        return "closed" if prompt.endswith(self.end) else "free"

    def read(self, reader: Reader, state: State) -> Steps[None]:
        """Read reasoning, where there is some."""
        if state == "closed":
            return
        if state == "free" and not (yield from reader.attempt(self._begin(reader))):
            return
        yield from reader.skip_space()
        if (yield from reader.until(self.end, kind=Reasoning)) is not None:
            yield from reader.skip_space()
            yield from reader.expect(self.end)
            yield from reader.skip_space()

    def _begin(self, reader: Reader) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(self.begin)


TAGS = Thinking("<think>", "</think>")
BRACKETS = Thinking("[THINK]", "[/THINK]")
CHANNEL = Thinking("<|channel>thought\n", "<channel|>")
