"""Suffix lookup: what followed the longest end of a text that was seen before, in it or in others."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outrider.drafting.base import Draft
from outrider.drafting.suffix_store import SuffixStore
from outrider.ops.budget import Budget, Meter
from outrider.ops.cpu import extension
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request

NOTHING = Draft()
RECENT = 64
"""Tokens of a text by which it finds its place in one that is new to it."""


@dataclass(eq=False)
class _Matched:
    """A request's text as far as it was read, and the shared texts that it is matched with."""

    text: Any
    read: int = 0
    others: Sequence[Any] = field(default=())

    def catch_up(self, tokens: Sequence[int], others: Sequence[Any]) -> None:
        if others is not self.others:
            self.text.watch(others, tokens[max(0, self.read - RECENT) : self.read])
            self.others = others
        self.text.add(tokens[self.read :])
        self.read = len(tokens)


class SuffixDrafter:
    """Drafts what followed the longest end of a text that occurred before: prompt lookup (Saxena, 2023; Yang
    et al., 2023) with matches of any length and with counts, as in SuffixDecoding (Oliaro et al., 2024).

    shortest: tokens that have to match; longest: from which on a longer match makes nothing surer; shared:
    the texts of finished requests, which are saved when the drafter goes.
    """

    def __init__(self, shortest: int, longest: int, shared: SuffixStore) -> None:
        self._shortest = shortest
        self._longest = longest
        self._shared = shared
        self._matched: dict[Request, _Matched] = {}
        weakref.finalize(self, shared.save)

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [self._follow(r, (), budget) for r, budget in zip(requests, budgets, strict=True)]

    def extend(
        self, requests: Sequence[Request], begun: Sequence[Sequence[int]], budgets: Sequence[Budget]
    ) -> list[Draft]:
        return [self._follow(*each) for each in zip(requests, begun, budgets, strict=True)]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The committed tokens are read at the next draft."""

    def end(self, request: Request) -> None:
        self._matched.pop(request, None)
        if request.finish_reason not in (None, "error"):
            self._shared.add(request.params.cache_salt, request.tokens)

    def behind(self, request: Request) -> int:
        """None that would count: reading a token takes a microsecond."""
        return 0

    def rest(self) -> None:
        """What is kept is small, and reading the text again would cost more than it frees."""

    def _follow(self, request: Request, begun: Sequence[int], budget: Budget) -> Draft:
        """What followed the request's text with `begun` behind it, as far as `budget` goes."""
        matched = self._matched.get(request)
        if matched is None:
            matched = self._matched[request] = _Matched(extension.require().SuffixText())
        matched.catch_up(request.tokens, self._shared.of(request.params.cache_salt))
        tokens, confidences, seconds = matched.text.follow(
            begun, budget.length, self._shortest, self._longest, budget.siblings > 0
        )
        if not tokens:
            return NOTHING
        meter, beside, length = Meter(budget), list[tuple[int, int]](), 0
        for confidence, second in zip(confidences, seconds, strict=True):
            forks = second >= 0 and len(beside) < budget.siblings and meter.forks(confidence)
            if not meter.takes(confidence):
                break
            if forks:
                beside.append((length - 1, second))
            length += 1
            if tokens[length - 1] in request.stop_tokens or not meter.goes_on():
                break
        parents = (*range(-1, length - 1), *(parent for parent, _ in beside)) if beside else ()
        return Draft(
            (*tokens[:length], *(token for _, token in beside)),
            confidences=tuple(confidences[:length]),
            parents=parents,
        )
