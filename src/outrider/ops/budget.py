"""How far a draft may go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Price:
    """When the next token of a draft is not worth what it costs.

    row: the price of verifying a token, token: of drafting and verifying one, both in expected tokens; least:
    tokens for which no price is asked. sure: the chance that a token stands, given those before it, by how
    sure the drafter is of it (`cell`); reached: the same by its position, of a drafter that says how sure it
    is; empty for others. second: the chance that the next best token stands where the best has fallen, by how
    sure the drafter was of that; empty where it is not to be drafted.
    """

    row: float
    token: float
    least: int
    sure: tuple[float, ...]
    reached: tuple[float, ...] = ()
    second: tuple[float, ...] = ()

    def behind(self, tokens: int, chance: float) -> Price:
        """What tokens cost behind so many others, which all stand with this chance."""
        return replace(
            self, row=self.row / chance, token=self.token / chance, least=max(0, self.least - tokens)
        )


@dataclass(frozen=True)
class Budget:
    """What one drafter may do for one request in one step. length: tokens at most, one after the other;
    siblings: next best tokens at most, beside these."""

    length: int
    price: Price | None = None
    siblings: int = 0

    @property
    def rows(self) -> int:
        """Tokens at most, in all."""
        return self.length + self.siblings

    def within(self, length: int) -> Budget:
        """The same with at most so many tokens one after the other."""
        return self if self.length <= length else replace(self, length=length)

    def in_rows(self, rows: int) -> Budget:
        """The same with at most so many tokens in all; siblings go first."""
        if self.rows <= rows:
            return self
        length = min(self.length, rows)
        return replace(self, length=length, siblings=rows - length)

    def after(self, tokens: int, confidences: Sequence[float]) -> Budget:
        """What is left of it once so many tokens are drafted, of which the drafter was so sure; a length of 0
        where it is not worth going on. confidences: one a token where there is a price."""
        meter = Meter(self)
        for confidence in confidences if self.price is not None else [1.0] * tokens:
            meter.takes(confidence)
        return Budget(self.length - tokens, meter.rest) if meter.goes_on() else Budget(0)


class Meter:
    """A draft on its budget, position by position."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._position = 0
        self._survival = 1.0

    def takes(self, confidence: float) -> bool:
        """Whether the next token is worth verifying; otherwise the draft ends before it.

        confidence: how sure the drafter is of the token, from 0 to 1. It must be known before the token is
        drawn, and so be a function of the text so far: dropping a token for what it turned out to be would
        bias the `standard` and `block` rules.
        """
        price = self._budget.price
        if price is not None:
            survival = self._survival * price.sure[cell(confidence, len(price.sure))]
            if survival < price.row and self._position >= price.least:
                return False
            self._survival = survival
        self._position += 1
        return True

    def forks(self, confidence: float) -> bool:
        """Whether the next best token is worth verifying too, beside the one that `takes` is asked about
        next."""
        price = self._budget.price
        if price is None or not price.second:
            return False
        falls = 1 - price.sure[cell(confidence, len(price.sure))]
        return self._survival * falls * price.second[cell(confidence, len(price.second))] >= price.row

    def goes_on(self) -> bool:
        """Whether it is worth drafting another token."""
        price = self._budget.price
        if self._position >= self._budget.length:
            return False
        if price is None or not price.reached or self._position < price.least:
            return True
        here = min(self._position, len(price.reached) - 1)
        return self._survival * price.reached[here] >= price.token

    @property
    def rest(self) -> Price | None:
        """What the tokens to come cost, as if they were the first."""
        price = self._budget.price
        if price is None:
            return None
        return replace(
            price.behind(self._position, self._survival),
            reached=price.reached[self._position :] or price.reached[-1:],
            second=(),
        )


def cell(confidence: float, cells: int) -> int:
    """A cell is a step of the log-odds: confidences near 1, where most are, are told apart most finely."""
    doubt = 1.0 - confidence
    if doubt < 1e-4:
        doubt = 1e-4
    place = int(math.log2((1.0 - doubt + 1e-4) / doubt) / 1.25 + 3.0)
    return 0 if place < 0 else place if place < cells else cells - 1
