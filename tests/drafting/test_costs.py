"""What a step costs, between and beyond what was measured, and what is learnt of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.drafting.costs import OUTLIER, QUICK, DraftCost, TargetCost

COUNTS, SECONDS = (1, 2, 4, 8), (1.0, 1.2, 2.0, 6.0)


def measured() -> TargetCost:
    return TargetCost(COUNTS, SECONDS, position=0.5, position_row=0.25, request=0.125)


def test_measured_counts_cost_what_was_measured() -> None:
    assert [measured().one_pass(count) for count in COUNTS] == pytest.approx(SECONDS)


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [(1.5, 1.1), (3, 1.6), (6, 4.0), (10, 8.0), (16, 14.0)],
)
def test_between_and_beyond_it_is_linear(rows: float, seconds: float) -> None:
    assert measured().one_pass(rows) == pytest.approx(seconds)


def test_more_rows_never_cost_less() -> None:
    noisy = TargetCost(COUNTS, (1.0, 0.9, 2.0, 1.5))
    assert [noisy.one_pass(count) for count in COUNTS] == pytest.approx([1.0, 1.0, 2.0, 2.0])
    assert noisy.one_pass(20) == pytest.approx(2.0)


@pytest.mark.parametrize(("rows", "seconds"), [(1, (2.0 - 1.0) / 3), (5, (6.0 - 2.0) / 4), (50, 1.0)])
def test_one_more_row(rows: float, seconds: float) -> None:
    assert measured().row(rows) == pytest.approx(seconds)


def test_attention_by_positions_and_by_pairs() -> None:
    assert measured().attention(10, 40) == pytest.approx(10 * 0.5 + 40 * 0.25)


@pytest.mark.parametrize(
    ("counts", "seconds"),
    [
        ((1, 2), (1.0,)),
        ((1,), (1.0,)),
        ((), ()),
        ((2, 4), (1.0, 2.0)),
        ((1, 4, 2), (1.0, 2.0, 3.0)),
        ((1, 2, 2), (1.0, 2.0, 3.0)),
        ((1, 2), (0.0, 1.0)),
        ((1, 2), (-1.0, 1.0)),
        ((1, 2), (float("nan"), 1.0)),
    ],
)
def test_what_cannot_be_a_cost_is_refused(counts: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="times"):
        TargetCost(counts, seconds)


def test_the_level_is_learnt_from_steps_of_any_size() -> None:
    """All is twice as slow as when it was measured."""
    cost, draw = measured(), random.Random(0)
    for _ in range(200):
        rows = draw.choice(COUNTS)
        cost.observe(rows, cost.attention(8, 8), 1, 2 * (measured().one_pass(rows) + 6.0), 0.0)
    for count in (*COUNTS, 3, 20):
        assert cost.one_pass(count) == pytest.approx(2 * measured().one_pass(count), rel=0.05)
    assert cost.attention(8, 8) == pytest.approx(12.0, rel=0.05)


def test_a_point_is_learnt_where_the_others_hold() -> None:
    """Eight rows take half of what was measured, one and two what was measured."""
    cost, draw = measured(), random.Random(0)
    truth = {1: 1.0, 2: 1.2, 8: 3.0}
    for _ in range(3000):
        rows = draw.choice(list(truth))
        cost.observe(rows, 0.0, 1, truth[rows], 0.0)
    for rows, seconds in truth.items():
        assert cost.one_pass(rows) == pytest.approx(seconds, rel=0.1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 100), st.floats(-1, 1)), max_size=60),
)
def test_more_rows_never_cost_less_whatever_is_observed(steps: list[tuple[int, float, float]]) -> None:
    cost = measured()
    for rows, passed, rest in steps:
        cost.observe(rows, 0.0, 2, passed, rest)
    found = [cost.one_pass(count) for count in range(1, 50)]
    assert found == sorted(found)
    assert found[0] > 0
    assert all(cost.row(count) >= 0 for count in range(1, 50))
    assert cost.request >= 0


def test_one_step_that_was_interrupted_moves_little() -> None:
    cost = measured()
    cost.observe(1, 0.0, 1, 1000.0, 1000.0)
    assert 1 < cost.one_pass(1) <= OUTLIER ** (QUICK + 0.03) + 1e-9
    assert cost.request < 2 * measured().request
    cost = measured()
    cost.observe(1, 0.0, 1, 0.0, 0.0)
    assert cost.one_pass(1) >= OUTLIER ** -(QUICK + 0.03) - 1e-9


def test_python_around_the_pass_is_learnt_by_request() -> None:
    cost = measured()
    for _ in range(300):
        cost.observe(4, 0.0, 4, 2.0, 4 * 0.01)
    assert cost.request == pytest.approx(0.01, rel=0.02)


def test_saved_is_what_was_learnt() -> None:
    cost = measured()
    for _ in range(20):
        cost.observe(2, 0.0, 2, 3.0, 0.5)
    again = TargetCost(**cost.as_json())
    for count in (1, 2, 3, 8, 30):
        assert again.one_pass(count) == pytest.approx(cost.one_pass(count))
    assert again.attention(7, 9) == pytest.approx(cost.attention(7, 9))
    assert again.request == cost.request
    assert again.as_json()["seconds"] == pytest.approx(cost.as_json()["seconds"])


def test_drafting_is_learnt_and_saved() -> None:
    cost, truth = DraftCost(0.1, 0.01, 0.02, 0.001), DraftCost(0.3, 0.03, 0.06, 0.003)
    draw = random.Random(0)
    for _ in range(200):
        requests, depth = draw.randint(1, 8), draw.randint(1, 4)
        seconds = truth.fixed * depth + truth.each * depth * requests + truth.first * requests
        cost.observe(requests, depth * requests, depth, 0, seconds)
    assert cost.as_json() == pytest.approx(truth.as_json(), rel=0.02)
    assert DraftCost(**cost.as_json()) == cost


def test_drafting_that_was_interrupted_once_moves_little() -> None:
    cost = DraftCost(0.1, 0.0)
    cost.observe(1, 1, 1, 0, 1000.0)
    assert cost.fixed == pytest.approx(0.1 * OUTLIER**QUICK)


def test_drafting_that_was_measured_as_free_stays_harmless() -> None:
    cost = DraftCost(0.0, 0.0)
    cost.observe(1, 1, 1, 0, 1.0)
    assert cost == DraftCost(0.0, 0.0)
