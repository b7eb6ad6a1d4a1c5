"""What a request may draft, of each drafter of its chain."""

from __future__ import annotations

import pytest

from outrider.drafting.plan import Plan
from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_store import SuffixStore
from outrider.ops.budget import Budget, Price
from tests.fakes import stub


@pytest.mark.parametrize(("lengths", "longest"), [((), 0), ((3,), 3), ((0, 5), 5), ((4, 2), 4)])
def test_a_plan_reserves_for_its_longest(lengths: tuple[int, ...], longest: int) -> None:
    assert Plan([Budget(length) for length in lengths]).rows == longest
    assert Plan([Budget(length, siblings=2) for length in lengths]).rows == longest + 2 * bool(lengths)


def test_a_plan_that_fits_stays_as_it_is() -> None:
    plan = Plan([Budget(3), Budget(5)])
    assert plan.within(5) is plan
    assert [budget.length for budget in plan.within(4).budgets] == [3, 4]
    assert plan.within(0).rows == 0


def test_siblings_are_the_first_that_there_is_no_room_for() -> None:
    plan = Plan([Budget(3, siblings=2), Budget(1, siblings=9)])
    assert plan.in_rows(10) is plan
    for rows, left in (
        (9, [(3, 2), (1, 8)]),
        (4, [(3, 1), (1, 3)]),
        (2, [(2, 0), (1, 1)]),
        (0, [(0, 0)] * 2),
    ):
        assert [(budget.length, budget.siblings) for budget in plan.in_rows(rows).budgets] == left
    assert [(budget.length, budget.siblings) for budget in plan.within(2).budgets] == [(2, 2), (1, 9)]


def test_a_price_ends_what_a_real_drafter_offers() -> None:
    """Suffix lookup says how long the words were that it found again."""
    drafter, request = SuffixDrafter(1, 4, SuffixStore(0)), stub()
    request.tokens = [1, 2, 3, 1, 2, 3, 9, 2]

    def priced(row: float) -> Budget:
        quarter = (0.25,) * 3  # a word in four, and what stands with a quarter
        return Budget(9, Price(row, 0.0, 0, quarter))

    def drafted(budget: Budget) -> tuple[int, ...]:
        return drafter.draft([request], [budget])[0].tokens

    assert drafted(Budget(5)) == (3, 9, 2, 3, 9)
    assert drafted(priced(0.9)) == ()
    # A quarter, a sixteenth: two tokens are worth a row that costs less.
    assert drafted(priced(0.06)) == (3, 9)
