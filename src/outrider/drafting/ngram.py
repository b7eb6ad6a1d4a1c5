"""Prompt lookup: what followed the last time these words stood in prompt or output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outrider.drafting.base import Draft
from outrider.ops.budget import Budget, Meter
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


class NgramIndex:
    """Where each n-gram of a growing token sequence last ended, for n from `shortest` to `longest`."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._ends: dict[tuple[int, ...], int] = {}
        self._others: dict[tuple[int, ...], int] = {}  # where it ended last and went on in another way
        self._indexed = 0

    def continuation(self, tokens: Sequence[int], budget: Budget) -> Draft:
        """What followed the latest earlier occurrence of the longest known suffix, as far as `budget` goes.

        `tokens` is the sequence of the last call, grown. Where the occurrence is so recent that too few
        tokens follow it, the repetition is continued. The confidence is the suffix's length over the longest.
        """
        # The n-grams that end at the last token stay out: they would find themselves.
        for end in range(self._indexed + 1, len(tokens)):
            for n in self._sizes:
                if n <= end:
                    self._add(tuple(tokens[end - n : end]), end, tokens)
        self._indexed = max(self._indexed, len(tokens) - 1)

        for n in self._sizes:
            suffix = tuple(tokens[-n:])
            start = self._ends.get(suffix) if n <= len(tokens) else None
            if start is not None:
                return self._follow(tokens, start, self._others.get(suffix), n / self._sizes[0], budget)
        return Draft()

    def _add(self, ngram: tuple[int, ...], end: int, tokens: Sequence[int]) -> None:
        before = self._ends.get(ngram)
        if before is not None and tokens[before] != tokens[end]:
            self._others[ngram] = before
        self._ends[ngram] = end

    @staticmethod
    def _follow(
        tokens: Sequence[int], start: int, other: int | None, confidence: float, budget: Budget
    ) -> Draft:
        """The tokens from `start` on, again and again, and beside the first what followed elsewhere."""
        drafted: list[int] = []
        period = len(tokens) - start
        meter = Meter(budget)
        forks = other is not None and budget.siblings > 0 and meter.forks(confidence)
        while meter.takes(confidence):
            drafted.append(tokens[start + len(drafted) % period])
            if not meter.goes_on():
                break
        confidences = (confidence,) * len(drafted)
        if not drafted or not forks or other is None:
            return Draft(tuple(drafted), confidences=confidences)
        parents = (*range(-1, len(drafted) - 1), -1)
        return Draft((*drafted, tokens[other]), confidences=confidences, parents=parents)


class NgramDrafter:
    """Prompt lookup decoding (Saxena, 2023; Yang et al., 2023), over prompt and output."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._range = (shortest, longest)
        self._indexes: dict[Request, NgramIndex] = {}

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [
            self._index(request).continuation(request.tokens, budget)
            for request, budget in zip(requests, budgets, strict=True)
        ]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The index reads the committed tokens at the next draft."""

    def end(self, request: Request) -> None:
        self._indexes.pop(request, None)

    def behind(self, request: Request) -> int:
        """None that would count: indexing a token takes a microsecond."""
        return 0

    def rest(self) -> None:
        """An index is small, and reading the text again would cost more than it frees."""

    def _index(self, request: Request) -> NgramIndex:
        index = self._indexes.get(request)
        if index is None:
            index = self._indexes[request] = NgramIndex(*self._range)
        return index
