"""Where a draft ends: at a length, or where the next token would cost more than it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outrider.ops.budget import Budget, Meter, Price, cell

CERTAIN = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""The chance that a token stands, by cell; 0.1, 0.7, 0.8 and 0.9 are the confidences of cells too."""


def priced(
    *, length: int = 9, least: int = 0, row: float = 0.0, token: float = 0.0, informed: bool = True
) -> Budget:
    """The chances are what the drafter says; of the next token, before it is known, a half is expected."""
    return Budget(length, Price(row, token, least, CERTAIN, (0.5,) * 4 if informed else ()))


def taken(budget: Budget, confidences: Sequence[float]) -> int:
    """Tokens of a draft with these confidences, as drafters make it."""
    meter = Meter(budget)
    for number, confidence in enumerate(confidences):
        if not meter.takes(confidence):
            return number
        if not meter.goes_on():
            return number + 1
    return len(confidences)


def test_cells_of_confidences() -> None:
    assert [cell(confidence, len(CERTAIN)) for confidence in (0.1, 0.7, 0.8, 0.9)] == [0, 3, 4, 5]
    assert [cell(confidence, 12) for confidence in (0.0, 0.5, 1.0)] == [0, 3, 11]
    cells = [cell(n / 1000, 12) for n in range(1001)]
    assert cells == sorted(cells)


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


def test_without_a_price_it_goes_to_the_length() -> None:
    assert taken(Budget(4), [0.1] * 8) == 4


def test_a_drafter_that_was_never_heard_to_be_sure_goes_on() -> None:
    """It is not known what to expect of the next token."""
    assert taken(priced(length=6, token=9.0, informed=False), [0.1] * 8) == 6


def test_beyond_what_is_told_apart_the_last_position_holds() -> None:
    price = Price(0.0, 0.4, 0, (1.0,), (0.9, 0.8, 0.5))
    assert taken(Budget(20, price), [1.0] * 20) == 20
    assert taken(Budget(20, replace(price, reached=(0.9, 0.8, 0.3))), [1.0] * 20) == 2


def test_a_budget_with_less_room_asks_the_same_price() -> None:
    budget = priced(row=0.6)
    assert budget.within(9) is budget
    assert taken(budget.within(20), [0.9, 0.8, 0.7]) == taken(budget, [0.9, 0.8, 0.7]) == 2
    assert taken(priced().within(2), [0.9] * 5) == 2
    assert taken(priced(token=0.48).within(8), [0.9] * 5) == 1
    assert priced(length=3).within(1) == replace(priced(), length=1)
    assert Budget(3).within(0) == Budget(0)


chances = st.floats(0.01, 0.98)
prices = st.builds(
    Price,
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 4),
    st.lists(chances, min_size=12, max_size=12).map(tuple),
    st.lists(chances, max_size=5).map(tuple),
)
budgets = st.builds(Budget, st.integers(1, 8), st.none() | prices)


@given(budgets, st.lists(st.floats(0, 1), min_size=8, max_size=8), st.lists(st.integers(1, 3), min_size=8))
@example(Budget(3), [0.5] * 8, [1] * 8)
def test_a_draft_in_pieces_ends_where_it_does_in_one_go(
    budget: Budget, confidences: list[float], pieces: list[int]
) -> None:
    """Each piece on what those before it left."""
    whole, done = taken(budget, confidences), 0
    for piece in pieces:
        within = budget.within(piece)
        count = taken(within, confidences[done:])
        used = confidences[done : done + count] if budget.price is not None else []
        done, budget = done + count, budget.after(count, used)
        if count < within.length or not budget.length:
            break
    assert done == whole


@given(budgets, st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_what_is_left_after_nothing_is_all(budget: Budget, confidences: list[float]) -> None:
    left = budget.after(0, [])
    assert left.length in (0, budget.length)  # none, where the first token is not worth drafting
    if left.length:
        assert taken(left, confidences) == taken(budget, confidences)


def test_what_is_left_of_a_price() -> None:
    """As if the next token were the first: it has to be worth more, by what the draft may have fallen."""
    budget = Budget(5, Price(0.2, 0.1, 3, CERTAIN, (0.9, 0.8, 0.7)))
    left = budget.after(2, [0.9, 0.8])
    assert left.price is not None
    assert (left.price.row, left.price.token) == pytest.approx((0.2 / 0.72, 0.1 / 0.72))
    assert left == Budget(3, Price(left.price.row, left.price.token, 1, CERTAIN, (0.7,)))
    assert Budget(5).after(2, []) == Budget(3)
    assert Budget(2).after(2, []).length == 0
    assert budget.after(5, [0.9] * 5).length == 0
