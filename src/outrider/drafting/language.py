"""Drafts in a language that the draft model may not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from outrider.drafting.base import Linguist
from outrider.drafting.forecast import Forecast
from outrider.models.spelling import Spelling

if TYPE_CHECKING:
    from outrider.drafting.base import Draft, Drafter
    from outrider.engine.request import Request
    from outrider.verification.accept import Verdict

WORD = re.compile(r"[^\W\d_]+")
FEW, MANY = 3, 32
"""Words that tell something, and those that are looked at."""
WHOLE = 1.3
"""Tokens a word at most, of a language that is known. SmolLM2's tokenizer takes 1.0 to 1.2 for prompts in
English that ask for text or programs, 1.4 to 2.0 for French, more for other languages."""
UNKNOWN = 0.2
"""The chance that a token stands in a language that is not known, before anything was tried."""


def knows(spelling: Spelling, text: str) -> bool | None:
    """Whether a model knows the language of a text, seen from its tokenizer alone: what its training was full
    of are words of one token. None for hardly any words."""
    words = WORD.findall(text)[-MANY:]
    if len(words) < FEW:
        return None
    tokens = sum(len(spelling.pieces(f" {word}".encode())) for word in words)
    return tokens <= WHOLE * len(words)


class ForecastByLanguage:
    """A `Forecast` for requests in a language that the drafter knows, and one for others.

    What is learnt of one says nothing of the other. A drafter is not asked in a language that it does not
    know, unless a pass of the target takes so long that one token in five pays, or trials have shown more:
    to find out otherwise it would have to read the whole prompt, which a short answer does not earn back.
    """

    def __init__(self, longest: int, acceptance: float, knows: Callable[[Request], bool]) -> None:
        self._known, self._other = Forecast(longest, acceptance), Forecast(longest, UNKNOWN)
        self._knows = knows

    @property
    def informed(self) -> bool:
        return self._known.informed or self._other.informed

    def curve(self, request: Request) -> Iterator[tuple[float, float]]:
        return self._of(request).curve(request)

    def first(self, request: Request) -> tuple[float, float]:
        return self._of(request).first(request)

    def shared(self) -> Iterator[float]:
        """In a language that it knows."""
        return self._known.shared()

    def sure(self, request: Request) -> tuple[float, ...]:
        return self._of(request).sure(request)

    def reached(self, request: Request) -> tuple[float, ...]:
        return self._of(request).reached(request)

    def second(self, request: Request) -> tuple[float, ...]:
        return self._of(request).second(request)

    def observe(self, request: Request, draft: Draft, length: int, verdict: Verdict) -> None:
        self._of(request).observe(request, draft, length, verdict)

    def observe_behind(self, request: Request, draft: Draft, own: range, verdict: Verdict) -> None:
        self._of(request).observe_behind(request, draft, own, verdict)

    def refresh(self) -> None:
        self._known.refresh()
        self._other.refresh()

    def forget(self, request: Request) -> None:
        self._known.forget(request)
        self._other.forget(request)

    def _of(self, request: Request) -> Forecast:
        return self._known if self._knows(request) else self._other


def forecast_of(drafter: Drafter, longest: int, acceptance: float) -> Forecast | ForecastByLanguage:
    """What is expected of a drafter before anything is known. longest, acceptance: as `Forecast` takes
    them."""
    if isinstance(drafter, Linguist):
        return ForecastByLanguage(longest, acceptance, drafter.knows)
    return Forecast(longest, acceptance)
