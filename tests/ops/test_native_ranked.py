"""The likeliest tokens of a row, with their log-probabilities and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.oracle import Array
from tests.ops.programs import BEST, INSTRUCTION_SETS, native, numbers

Ranked = list[tuple[int, float, int]]


def by_definition(logits: Array, token: int, count: int) -> Ranked:
    x = logits.astype(np.float64)
    logprobs = x - (x.max() + np.log(np.exp(x - x.max()).sum()))
    ranks = {token: int((logits > logits[token]).sum()) + 1}
    for rank, other in enumerate(np.argsort(-logits, kind="stable")[:count].tolist(), start=1):
        ranks.setdefault(other, rank)
    return [(one, float(logprobs[one]), rank) for one, rank in ranks.items()]


def check(found: Ranked, expected: Ranked) -> None:
    assert [(token, rank) for token, _, rank in found] == [(token, rank) for token, _, rank in expected]
    assert [p for _, p, _ in found] == pytest.approx([p for _, p, _ in expected], abs=1e-12)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("count", [0, 1, 5, 20, 1000, 60_000])
def test_a_large_vocabulary(count: int, instruction_set: str) -> None:
    logits = numbers(50_001, scale=4)
    for token in (0, 777, int(logits.argmax()), int(logits.argmin())):
        check(native.ranked(logits, token, count, instruction_set), by_definition(logits, token, count))


@settings(max_examples=200, deadline=None)
@given(logits=st.lists(st.integers(-4, 4), min_size=1, max_size=150), data=st.data())
def test_equals_are_ranked_by_id(logits: list[int], data: st.DataObject) -> None:
    row = np.array(logits, np.float32)
    token, count = data.draw(st.integers(0, len(row) - 1)), data.draw(st.integers(0, 200))
    check(native.ranked(row, token, count, BEST), by_definition(row, token, count))


def test_forbidden_tokens_are_least_likely() -> None:
    row = np.array([-np.inf, 1, -np.inf, 0], np.float32)
    found = native.ranked(row, 2, 4, BEST)
    assert [(token, rank) for token, _, rank in found] == [(2, 3), (1, 1), (3, 2), (0, 3)]
    assert [p for _, p, _ in found] == pytest.approx([-np.inf, -0.3132617, -1.3132617, -np.inf])


def test_a_row_that_holds_nan_says_so() -> None:
    row = np.array([0, np.nan, 2], np.float32)
    found = native.ranked(row, 0, 3, BEST)
    assert [(token, rank) for token, _, rank in found] == [(0, 2), (2, 1)]
    assert all(np.isnan(p) for _, p, _ in found)


@pytest.mark.parametrize(
    ("token", "count", "message"),
    [(-1, 1, "token = -1; logits has 3 columns"), (3, 1, "token = 3"), (0, -1, "count = -1")],
)
def test_what_there_is_not(token: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.ranked(np.zeros(3, np.float32), token, count, BEST)
