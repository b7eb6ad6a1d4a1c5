"""Top-k, top-p and min-p against plain Python.

Scores are logarithms of integer weights and thresholds fall between two of them, so that no rounding
decides what is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.ops.torch.filters import keep_min_p, keep_top_k, keep_top_p
from tests.ops import truncation

Keep = Callable[[Tensor], Tensor]

weights = st.lists(st.integers(1, 6) | st.integers(1, 40), min_size=1, max_size=12)
between = st.integers(0, 10**6)


def scores(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log_().float()


def kept(filtered: Tensor, before: Tensor) -> set[int]:
    """The tokens of row 0 that stand; what stands has the score that it had."""
    survivors = filtered[0] > -torch.inf
    assert torch.equal(filtered[0][survivors], before[0][survivors])
    return set(survivors.nonzero()[:, 0].tolist())


@given(weights, st.integers(1, 14))
def test_top_k(row: list[int], k: int) -> None:
    assert kept(keep_top_k(scores(row), k), scores(row)) == truncation.top_k(row, k)


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    assert kept(keep_top_k(scores([3, 9, 3, 1, 3]), 2), scores([3, 9, 3, 1, 3])) == {0, 1, 2, 4}


@given(weights, between)
def test_top_p(row: list[int], cut: int) -> None:
    p = (cut % sum(row) + 0.5) / sum(row)
    assert kept(keep_top_p(scores(row), p), scores(row)) == truncation.top_p(row, p)


def test_top_p_keeps_equals_in_order_of_their_ids() -> None:
    assert kept(keep_top_p(scores([1, 1, 1, 1]), 0.4), scores([1, 1, 1, 1])) == {0, 1}


@pytest.mark.parametrize("p", [5e-324, 1e-30, 1e-9])
@given(row=weights)
def test_tiny_top_p_keeps_the_likeliest(p: float, row: list[int]) -> None:
    assert kept(keep_top_p(scores(row), p), scores(row)) == {row.index(max(row))}


@given(weights, between)
def test_min_p(row: list[int], cut: int) -> None:
    share = (cut % max(row) + 0.5) / max(row)
    assert kept(keep_min_p(scores(row), share), scores(row)) == truncation.min_p(row, share)


def test_min_p_of_one_keeps_the_likeliest_and_its_equals() -> None:
    assert kept(keep_min_p(scores([2, 5, 5, 4]), 1.0), scores([2, 5, 5, 4])) == {1, 2}


@pytest.mark.parametrize(
    "keep", [lambda s: keep_top_k(s, 2), lambda s: keep_top_p(s, 0.6), lambda s: keep_min_p(s, 0.4)]
)
class TestEveryFilter:
    @given(st.lists(st.lists(st.integers(1, 9), min_size=5, max_size=5), min_size=2, max_size=5))
    def test_a_row_does_not_see_the_others(self, keep: Keep, rows: list[list[int]]) -> None:
        together = keep(scores(*rows))
        for i, row in enumerate(rows):
            assert torch.equal(together[i], keep(scores(row))[0])

    @given(st.lists(st.integers(1, 9), min_size=4, max_size=8))
    def test_input_is_not_changed(self, keep: Keep, row: list[int]) -> None:
        given_scores = scores(row)
        keep(given_scores)
        assert torch.equal(given_scores, scores(row))

    @given(st.lists(st.integers(1, 9), min_size=4, max_size=8), st.integers(0, 3))
    def test_what_was_dropped_before_stays_dropped(self, keep: Keep, row: list[int], dropped: int) -> None:
        row[dropped] = 0
        filtered = keep(scores(row))[0]
        assert float(filtered[dropped]) == -torch.inf
        assert float(filtered.max()) == float(scores(row).max())
