"""Prompt lookup: what followed the last time these words stood in prompt or output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outrider.drafting.base import Draft
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


class NgramIndex:
    """Where each n-gram of a growing token sequence last ended, for n from `shortest` to `longest`."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def continuation(self, tokens: Sequence[int], length: int) -> tuple[int, ...]:
        """Up to `length` tokens that followed the latest earlier occurrence of the longest known suffix.

        `tokens` is the sequence of the last call, grown. Where the occurrence is so recent that fewer than
        `length` tokens follow it, the repetition is continued.
        """
        # The n-grams that end at the last token stay out: they would find themselves.
        for end in range(self._indexed + 1, len(tokens)):
            for n in self._sizes:
                if n <= end:
                    self._ends[tuple(tokens[end - n : end])] = end
        self._indexed = max(self._indexed, len(tokens) - 1)

        for n in self._sizes:
            start = self._ends.get(tuple(tokens[-n:])) if n <= len(tokens) else None
            if start is not None:
                period = len(tokens) - start
                return tuple(tokens[start + i % period] for i in range(length))
        return ()


class NgramDrafter:
    """Prompt lookup decoding (Saxena, 2023; Yang et al., 2023), over prompt and output."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._range = (shortest, longest)
        self._indexes: dict[Request, NgramIndex] = {}

    def draft(self, requests: Sequence[Request], lengths: Sequence[int]) -> list[Draft]:
        return [self._draft(r, n) if n else Draft() for r, n in zip(requests, lengths, strict=True)]

    def _draft(self, request: Request, length: int) -> Draft:
        index = self._indexes.get(request)
        if index is None:
            index = self._indexes[request] = NgramIndex(*self._range)
        return Draft(index.continuation(request.tokens, length))

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The index reads the committed tokens at the next draft."""

    def end(self, request: Request) -> None:
        self._indexes.pop(request, None)
