"""Where a draft ends: at a length, or where the next token would cost more than it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from outrider.drafting.forecast import Forecast
from outrider.drafting.limit import Capped, Fixed, Limit, Plan
from outrider.drafting.ngram import NgramIndex
from outrider.drafting.priced import Priced
from tests.drafting import stub

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass
class Known:
    """A forecast that believes what it is told; of the next token, before it is told, it expects a half."""

    informed: bool = True

    def chance(self, request: Request, position: int, confidence: float | None) -> float:
        return 0.5 if confidence is None else confidence


def priced(
    *, length: int = 9, least: int = 0, row: float = 0.0, token: float = 0.0, informed: bool = True
) -> Priced:
    return Priced(cast(Forecast, Known(informed)), stub(), length, least=least, row=row, token=token)


def taken(limit: Limit, confidences: list[float | None]) -> int:
    """Tokens of a draft with these confidences, as drafters make it."""
    for number, confidence in enumerate(confidences):
        if number == limit.length or not limit.take(confidence):
            return number
        if not limit.more():
            return number + 1
    return len(confidences)


@pytest.mark.parametrize(("row", "tokens"), [(0.0, 5), (0.5, 4), (0.6, 3), (0.75, 2), (0.85, 1), (0.95, 0)])
def test_a_token_that_is_not_worth_its_row_is_not_taken(row: float, tokens: int) -> None:
    """0.9, 0.81, 0.73, 0.58 and 0.41: the chances that the draft stands that far."""
    assert taken(priced(row=row), [0.9, 0.9, 0.9, 0.8, 0.7]) == tokens


@pytest.mark.parametrize(("token", "tokens"), [(0.0, 4), (0.28, 4), (0.3, 3), (0.42, 2), (0.47, 1)])
def test_drafting_ends_where_the_next_would_not_be_worth_it(token: float, tokens: int) -> None:
    """Half of 0.9, 0.81, 0.57 and 0.51: what the next one is worth after each."""
    assert taken(priced(token=token), [0.9, 0.9, 0.7, 0.9]) == tokens


@pytest.mark.parametrize("least", [0, 1, 3, 5])
def test_no_price_is_asked_for_the_least(least: int) -> None:
    assert taken(priced(least=least, row=9.0, token=9.0), [0.1] * 8) == least


def test_without_confidences_it_goes_to_the_length() -> None:
    limit = priced(length=4, row=9.0, token=9.0, informed=False)
    assert taken(limit, [None] * 8) == 4


def test_with_a_real_forecast_and_no_confidences_it_goes_to_the_length() -> None:
    limit = Priced(Forecast(16, 0.1), stub(), 6, least=0, row=0.9, token=0.9)
    assert taken(limit, [None] * 8) == 6


def test_a_price_ends_what_a_real_drafter_offers() -> None:
    """The n-gram drafter says how long the words were that it found again."""
    index, tokens = NgramIndex(1, 4), [1, 2, 3, 1, 2, 3, 9, 2]
    assert index.continuation(tokens, Fixed(5)).tokens == (3, 9, 2, 3, 9)
    assert index.continuation(tokens, priced(row=0.9)).tokens == ()
    # A quarter, a sixteenth: two tokens are worth a row that costs less.
    assert index.continuation(tokens, priced(row=0.06)).tokens == (3, 9)


@pytest.mark.parametrize(("lengths", "longest"), [((), 0), ((3,), 3), ((0, 5), 5), ((4, 2), 4)])
def test_a_plan_reserves_for_its_longest(lengths: tuple[int, ...], longest: int) -> None:
    assert Plan([Fixed(length) for length in lengths]).length == longest


def test_a_plan_that_fits_stays_as_it_is() -> None:
    plan = Plan([Fixed(3), Fixed(5)])
    assert plan.within(5) is plan
    assert [limit.length for limit in plan.within(4).limits] == [3, 4]
    assert plan.within(0).length == 0


def test_a_capped_limit_asks_the_same_price() -> None:
    free, capped = priced(row=0.6), Capped(priced(row=0.6), 9)
    assert taken(capped, [0.9, 0.8, 0.7]) == taken(free, [0.9, 0.8, 0.7]) == 2
    assert taken(Capped(priced(), 2), [0.9] * 5) == 2
    assert taken(Capped(priced(token=0.48), 9), [0.9] * 5) == 1


@pytest.mark.parametrize("limit", [Fixed(3), priced(length=3)])
def test_capped_says_whether_confidences_matter(limit: Limit) -> None:
    assert Capped(limit, 1).informed == limit.informed
    assert Capped(limit, 8).length == 3
