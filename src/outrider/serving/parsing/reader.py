"""Reading the text of a sequence while it comes.

A format is written as a generator that reads from front to back, as if all of the text were there. It yields
events, and None where it cannot go on before more text has come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Generator, Iterable
from functools import lru_cache
from typing import TypeVar

from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning
from outrider.serving.parsing.json_text import JsonText

T = TypeVar("T")
Steps = Generator[Event | None, None, T]
SPACE = " \t\r\n"


class Malformed(Exception):
    """The text is not what its format says."""


class Reader:
    """The text of one sequence, and the place up to which it was read.

    functions: names of the tools that may be called; call_id: of the call of an index; whole: calls are told
    when they are complete, so that one that is cut off is text; otherwise they are told while they come.
    noise: texts of special tokens, which are left out of what is told.
    """

    def __init__(
        self,
        functions: Collection[str] = (),
        call_id: Callable[[int], str] = str,
        *,
        whole: bool = False,
        noise: Iterable[str] = (),
    ) -> None:
        self.functions = functions
        self.calls = 0
        self._call_id = call_id
        self._whole = whole
        self._noise = tuple(noise)
        self._text = ""
        self._at = 0
        self._pinned = False  # whether reading may have to go back
        self._ended = False

    def add(self, text: str) -> None:
        if not self._pinned:
            self._text, self._at = self._text[self._at :], 0
        self._text += text

    def end(self) -> None:
        """Say that no more text comes."""
        self._ended = True

    def until(self, *marks: str, kind: type[Content | Reasoning] = Content) -> Steps[str | None]:
        """Tell the text up to one of the marks, which is returned and not read yet; None: up to the end.

        White space just before a mark is not told, and is read by `skip_space`.
        """
        while True:
            found = _any_of((*marks, *self._noise)).search(self._text, self._at)
            if found is not None and found[0] in marks:
                yield from self._tell(len(self._text[: found.start()].rstrip(SPACE)), kind)
                return found[0]
            if found is not None:
                yield from self._tell(found.start(), kind)
                self._at = found.end()
            elif self._ended:
                yield from self._tell(len(self._text), kind)
                return None
            else:
                certain = len(self._text) - _partial(self._text[self._at :], (*marks, *self._noise))
                if marks:
                    certain = len(self._text[:certain].rstrip(SPACE))
                yield from self._tell(certain, kind)
                yield None

    def skip_space(self) -> Steps[None]:
        """Read white space."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return
            yield None

    def skip_rest(self) -> None:
        """Read all that is there."""
        self._at = len(self._text)

    def begins(self, *texts: str) -> Steps[str | None]:
        """Read which of the texts comes next; None, and nothing is read, where none does."""
        while True:
            rest = self._text[self._at :]
            found = max((text for text in texts if rest.startswith(text)), key=len, default=None)
            longer = any(text.startswith(rest) and text != found for text in texts)
            if not longer or self._ended:
                self._at += len(found or "")
                return found
            yield None

    def expect(self, *texts: str) -> Steps[str]:
        """Read one of the texts. Raises Malformed where none comes."""
        found = yield from self.begins(*texts)
        if found is None:
            raise Malformed
        return found

    def close(self, text: str) -> Steps[None]:
        """Read the end of something; the end of the text in it is as good. Raises Malformed."""
        if (yield from self.begins(text)) is None:
            if not (self._ended and text.startswith(self._text[self._at :])):
                raise Malformed
            self._at = len(self._text)

    def through(self, *marks: str) -> Steps[tuple[str, str]]:
        """Read up to and with one of the marks: what stands before it, and the mark. Raises Malformed."""
        while (found := _any_of(marks).search(self._text, self._at)) is None:
            if self._ended:
                raise Malformed
            yield None
        before, self._at = self._text[self._at : found.start()], found.end()
        return before, found[0]

    def before(self, *marks: str) -> Steps[str]:
        """Read up to one of the marks, which is not read. Raises Malformed where none comes."""
        text, mark = yield from self.through(*marks)
        self._at -= len(mark)
        return text

    def string(self) -> Steps[str]:
        """Read a JSON string. Raises Malformed."""
        text = yield from self._json('"', tell=None)
        return str(json.loads(text))

    def begin_call(self, name: str) -> Steps[int]:
        """Tell that a tool is called; returns the index of the call. Raises Malformed for an unknown one."""
        if name not in self.functions:
            raise Malformed
        index = self.calls
        self.calls += 1
        yield CallBegins(index, self._call_id(index), name)
        return index

    def arguments(self, index: int) -> Steps[None]:
        """Tell a JSON object as the arguments of a call. Raises Malformed."""
        yield from self._json("{", tell=index)

    def attempt(self, steps: Steps[None]) -> Steps[bool]:
        """Tell calls as `steps` read them. False where there is none: then all is as it was before."""
        start, calls, told = self._at, self.calls, False
        held: list[Event] = []
        self._pinned = True
        try:
            for event in steps:
                if event is None or not self._whole:
                    self._pinned = not (told := told or event is not None)
                    yield event
                else:
                    held.append(event)
        except Malformed:
            if not told:
                self._at, self.calls = start, calls
            return told
        finally:
            self._pinned = False
        yield from held
        return True

    def as_text(self, text: str) -> Steps[None]:
        """Tell what was no call after all: white space and the mark that was taken for its beginning."""
        start = self._at
        yield from self.skip_space()
        yield from self.expect(text)
        yield Content(self._text[start : self._at])

    def _tell(self, end: int, kind: type[Content | Reasoning]) -> Steps[None]:
        if end > self._at:
            text, self._at = self._text[self._at : end], end
            yield kind(text)

    def _json(self, first: str, tell: int | None) -> Steps[str]:
        """Read a JSON value that begins with `first`, and tell it as the arguments of call `tell`."""
        yield from self.expect(first)
        value, text = JsonText(), [first]
        value.feed(first)
        if tell is not None:
            yield CallArguments(tell, first)
        while not value.ended:
            taken = value.feed(self._text[self._at :])
            if taken:
                text.append(self._text[self._at : self._at + taken])
                self._at += taken
                if tell is not None:
                    yield CallArguments(tell, text[-1])
            if not value.ended:
                if self._ended:
                    raise Malformed
                yield None
        try:
            json.loads("".join(text))
        except (ValueError, RecursionError):
            raise Malformed from None
        return "".join(text)


class TextParser:
    """A parser for one sequence: a reader, and the format that reads from it."""

    def __init__(self, reader: Reader, read: Callable[[Reader], Steps[None]]) -> None:
        self._reader = reader
        self._steps = _to_the_end(reader, read)

    def feed(self, text: str) -> list[Event]:
        self._reader.add(text)
        return self._run()

    def finish(self) -> list[Event]:
        self._reader.end()
        return self._run()

    def _run(self) -> list[Event]:
        events: list[Event] = []
        for event in self._steps:
            if event is None:
                break
            events.append(event)
        return events


def _to_the_end(reader: Reader, read: Callable[[Reader], Steps[None]]) -> Steps[None]:
    yield from read(reader)
    yield from reader.until()


@lru_cache(maxsize=256)
def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    """What finds the first of the texts, and the longest of those at one place."""
    if not texts:
        return re.compile(r"(?!)")
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))


@lru_cache(maxsize=256)
def _beginnings(texts: tuple[str, ...]) -> tuple[frozenset[str], int]:
    """Whatever a text may begin with, short of all of it, and how long that is at most."""
    parts = frozenset(text[:count] for text in texts for count in range(1, len(text)))
    return parts, max(map(len, parts), default=0)


def _partial(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    parts, longest = _beginnings(marks)
    return next((n for n in range(min(longest, len(text)), 0, -1) if text[-n:] in parts), 0)
