"""The texts of finished requests, which other requests are matched with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from outrider.drafting.suffix_file import SuffixFile, Texts
from outrider.ops.cpu import extension

GENERATIONS = 8
"""The oldest texts are forgotten together, which are at most one of so many parts of the memory."""
SAVE_EVERY = 300.0  # seconds


class _TextGeneration(NamedTuple):
    """Texts of about the same age and of one salt."""

    salt: bytes
    automaton: Any


class SuffixStore:
    """Texts by cache salt, in at most `limit` bytes: where they are short the oldest go, of whatever salt.

    A request is matched with texts of its own salt alone, so that neither its drafts nor its time tell what
    others said; those without a salt share theirs. file: keeps texts across restarts. clock: seconds.
    """

    def __init__(
        self, limit: int, file: SuffixFile | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._file = file
        self._clock = clock
        self._generations: list[_TextGeneration] = []  # the oldest first
        self._of: dict[bytes, tuple[Any, ...]] = {}  # the newest first
        self._kind = extension.require().SuffixAutomaton if limit else None
        self.bytes = 0
        """How many the texts take."""
        for salt, texts in file.load() if file is not None else ():
            for text in texts:
                self._add(salt, text)
        self._saved = clock()
        self._changed = False

    def of(self, salt: str | None) -> Sequence[Any]:
        """The automata of the texts that a request with this salt may see: the same object until one comes or
        goes."""
        return self._of.get(_key(salt), ())

    def add(self, salt: str | None, tokens: Sequence[int]) -> None:
        """A request has finished with this text. Of one that is too long the end is kept."""
        self._add(_key(salt), tokens)
        self._changed = True
        if self._file is not None and self._clock() - self._saved > SAVE_EVERY:
            self._saved = self._clock()
            self._changed = False
            self._file.save_aside(self._texts)

    def save(self) -> None:
        """Write the file, if there is one and something new for it."""
        if self._file is not None and self._changed:
            self._file.save(self._texts)

    def _texts(self) -> list[Texts]:
        return [(each.salt, each.automaton.texts()) for each in tuple(self._generations)]

    def _add(self, salt: bytes, tokens: Sequence[int]) -> None:
        if self._kind is None:
            return
        most = self._limit // GENERATIONS
        room = (most - self._kind.BESIDES) // self._kind.MOST_PER_TOKEN
        tokens = tokens[-room:] if room > 0 else ()
        if not tokens:
            return
        needed = self._kind.BESIDES + self._kind.MOST_PER_TOKEN * len(tokens)
        while self._generations and self.bytes + needed > self._limit:
            self._drop_oldest()
        newest = self._of.get(salt, ())[:1]
        if not newest or newest[0].bytes + needed > most:
            newest = (self._kind(),)
            self._generations.append(_TextGeneration(salt, newest[0]))
            self._of[salt] = (*newest, *self._of.get(salt, ()))
            self.bytes += newest[0].bytes
        before = newest[0].bytes
        newest[0].add(tokens)
        self.bytes += newest[0].bytes - before

    def _drop_oldest(self) -> None:
        salt, automaton = self._generations.pop(0)
        self.bytes -= automaton.bytes
        left = tuple(each for each in self._of[salt] if each is not automaton)
        if left:
            self._of[salt] = left
        else:
            del self._of[salt]
        automaton.clear()  # a request that drafts nothing just now may hold it for long


def _key(salt: str | None) -> bytes:
    """A salt may be a secret: only its hash is kept, and written to the file."""
    return b"" if salt is None else sha256(salt.encode("utf-8", "surrogatepass")).digest()
