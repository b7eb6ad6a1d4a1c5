"""A limit that ends a draft where the next token would cost more than it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outrider.drafting.forecast import Forecast

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(eq=False)
class Priced:
    """See `outrider.drafting.limit.Limit`. A drafter that does not say how sure it is goes to the length.

    row: the price of verifying a token, token: of drafting and verifying one, both in expected tokens; least:
    tokens for which no price is asked.
    """

    forecast: Forecast
    request: Request
    length: int
    least: int
    row: float
    token: float
    informed: bool = True
    _position: int = 0
    _survival: float = 1.0

    def take(self, confidence: float | None) -> bool:
        if confidence is not None:
            survival = self._survival * self.forecast.chance(self.request, self._position, confidence)
            if survival < self.row and self._position >= self.least:
                return False
            self._survival = survival
        self._position += 1
        return True

    def more(self) -> bool:
        if not self.forecast.informed or self._position < self.least:
            return True
        return self._survival * self.forecast.chance(self.request, self._position, None) >= self.token
