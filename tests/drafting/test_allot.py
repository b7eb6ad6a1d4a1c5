"""Which positions are drafted: held against every combination of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.drafting.allot import GAIN_AT_LEAST, Allotment, Position, Undrafted
from outrider.drafting.allot import allot as allot_among
from outrider.drafting.costs import TargetCost

COUNTS = (1, 2, 4, 8, 16)
FLAT = TargetCost((1, 64), (1.0, 1.0 + 63e-6))  # rows that cost next to nothing
STEEP = TargetCost((1, 64), (1.0, 64.0))  # as many passes


def allot(
    prospects: Sequence[Sequence[Position]], depth: float, base: Undrafted, target: TargetCost
) -> Allotment:
    """Where there is one drafter."""
    return allot_among(prospects, [[depth]] * len(prospects), base, target)


def positions(chances: Sequence[float], seconds: float, first: float = 0.0) -> list[Position]:
    """The positions of a request whose tokens stand with these chances, each given those before it."""
    found, survival = [], 1.0
    for number, chance in enumerate(chances):
        survival *= chance
        found.append(Position(survival, 1.0, seconds + (0.0 if number else first)))
    return found


def rate(
    lengths: Sequence[int],
    prospects: Sequence[list[Position]],
    depth: float,
    base: Undrafted,
    target: TargetCost,
) -> float:
    taken = [at for request, length in zip(prospects, lengths, strict=True) for at in request[:length]]
    rows = base.rows + sum(at.rows for at in taken)
    seconds = base.seconds + sum(at.seconds for at in taken) + depth * max(lengths)
    return (base.tokens + sum(at.tokens for at in taken)) / (target.one_pass(rows) + seconds)


def share_of_optimum(
    prospects: Sequence[list[Position]], depth: float, base: Undrafted, target: TargetCost
) -> float:
    """The rate reached over the best of all combinations. The rate that was promised has to be true."""
    found = allot(prospects, depth, base, target)
    reached = rate(found.lengths, prospects, depth, base, target)
    assert found.rate == pytest.approx(reached)
    assert reached >= rate([0] * len(prospects), prospects, depth, base, target) * (1 - 1e-9)
    every = product(*(range(len(request) + 1) for request in prospects))
    return reached / max(rate(lengths, prospects, depth, base, target) for lengths in every)


chances = st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4)
batches = st.lists(chances, min_size=1, max_size=3)
slopes = st.lists(st.floats(0, 0.3), min_size=4, max_size=4)
steps = settings(max_examples=150, deadline=None, derandomize=True)


def curve(slopes: Sequence[float]) -> TargetCost:
    """Seconds that grow from each count to the next by so much a row; one row takes a second."""
    seconds = [1.0]
    for slope, fewer, more in zip(slopes, COUNTS, COUNTS[1:], strict=False):
        seconds.append(seconds[-1] + slope * (more - fewer))
    return TargetCost(COUNTS, seconds)


@steps
@given(batch=batches, slope=st.floats(0, 0.5), each=st.floats(0, 0.3), others=st.floats(0, 1))
def test_optimal_where_rows_cost_the_same(
    batch: list[list[float]], slope: float, each: float, others: float
) -> None:
    """But for gains that are too small to be believed."""
    prospects = [positions(chances, each) for chances in batch]
    base = Undrafted(len(batch), len(batch), others)
    share = share_of_optimum(prospects, 0.0, base, curve([slope] * 4))
    drafts = any(allot(prospects, 0.0, base, curve([slope] * 4)).lengths)
    assert share >= (1 if drafts else 1 / GAIN_AT_LEAST) - 1e-9


@steps
@given(batch=batches, slopes=slopes, each=st.floats(0, 0.3), depth=st.floats(0, 0.3))
def test_optimal_where_rows_cost_more_and_more(
    batch: list[list[float]], slopes: list[float], each: float, depth: float
) -> None:
    prospects = [positions(chances, each) for chances in batch]
    base = Undrafted(len(batch), len(batch), 0.0)
    assert share_of_optimum(prospects, depth, base, curve(sorted(slopes))) >= 1 / GAIN_AT_LEAST - 1e-9


@steps
@given(
    batch=batches,
    slopes=slopes,
    seconds=st.lists(st.floats(0, 0.3), min_size=3, max_size=3),
    depth=st.floats(0, 0.3),
)
def test_near_the_optimum_whatever_rows_cost(
    batch: list[list[float]], slopes: list[float], seconds: list[float], depth: float
) -> None:
    """Also where they become cheaper, which is not foreseen from where the batch is, and requests differ."""
    prospects = [positions(chances, each) for chances, each in zip(batch, seconds, strict=False)]
    base = Undrafted(len(batch), len(batch), 0.0)
    assert share_of_optimum(prospects, depth, base, curve(slopes)) >= 0.85


def test_planted_fault_longest_for_all_is_caught() -> None:
    """A length that ignores chances falls below the bounds above."""
    prospects = [positions([0.9] * 4, 0.1), positions([0.1] * 4, 0.1)]
    base, target = Undrafted(2, 2, 0.0), curve([0.1] * 4)
    best = rate(allot(prospects, 0.0, base, target).lengths, prospects, 0.0, base, target)
    assert rate([4, 4], prospects, 0.0, base, target) < 0.85 * best


def test_nothing_where_nothing_pays() -> None:
    found = allot([positions([0.9] * 8, 0.0)] * 3, 0.0, Undrafted(3, 3, 0.0), STEEP)
    assert found == Allotment([0, 0, 0], 3 / STEEP.one_pass(3), 3)


def test_nothing_without_prospects() -> None:
    assert allot([[], []], 0.1, Undrafted(2, 2, 0.0), FLAT).lengths == [0, 0]
    assert allot([], 0.1, Undrafted(2, 2, 0.0), FLAT).lengths == []


def test_a_gain_that_may_be_an_error_is_left() -> None:
    prospects = [positions([GAIN_AT_LEAST - 1.001], 0.0)]
    assert allot(prospects, 0.0, Undrafted(1, 1, 0.0), FLAT).lengths == [0]
    prospects = [positions([GAIN_AT_LEAST - 0.999], 0.0)]
    assert allot(prospects, 0.0, Undrafted(1, 1, 0.0), FLAT).lengths == [1]


def test_the_likelier_request_drafts_longer() -> None:
    prospects = [positions([chance] * 16, 0.02) for chance in (0.9, 0.6, 0.2)]
    lengths = allot(prospects, 0.0, Undrafted(3, 3, 0.0), curve([0.05] * 4)).lengths
    assert lengths[0] > lengths[1] > lengths[2]


def test_who_would_have_much_to_read_keeps_nobody_from_drafting() -> None:
    dear = positions([0.9] * 8, 0.02, first=30.0)
    cheap = positions([0.9] * 8, 0.02)
    base = Undrafted(2, 2, 0.0)
    assert allot([dear, cheap], 0.0, base, FLAT).lengths == allot([[], cheap], 0.0, base, FLAT).lengths
    assert allot([dear, cheap], 0.05, base, FLAT).lengths[1] > 0


def test_going_deeper_is_paid_by_all_together() -> None:
    """What is too dear for one request pays for eight."""
    one, eight = [[positions([0.6] * 4, 0.0)] * count for count in (1, 8)]
    assert allot(one, 0.6, Undrafted(1, 1, 0.0), FLAT).lengths == [0]
    lengths = allot(eight, 0.6, Undrafted(8, 8, 3.0), FLAT).lengths
    assert min(lengths) > 0
    assert len({*lengths}) == 1


def test_rows_that_are_seldom_offered_cost_seldom() -> None:
    """A drafter that is mostly silent, but right when it speaks."""
    often = [Position(0.5, 1.0, 0.0)]
    seldom = [Position(0.5, 0.55, 0.0)]
    target = TargetCost((1, 64), (1.0, 1.0 + 63 * 0.55))
    assert allot([often], 0.0, Undrafted(1, 1, 0.0), target).lengths == [0]
    assert allot([seldom], 0.0, Undrafted(1, 1, 0.0), target).lengths == [1]


def test_a_drafter_costs_nothing_where_it_is_not_asked() -> None:
    """The second of two drafters is dear to step, and asked for one request alone, whose draft is short."""
    base = Undrafted(2, 2, 0.0)
    long, short = positions([0.95] * 8, 0.0), positions([0.9], 0.0)
    apart = allot_among([long, short], [[0.0, 0.0], [0.0, 0.2]], base, FLAT).lengths
    assert apart == [8, 1]
    together = allot_among([long, short], [[0.0, 0.4], [0.0, 0.4]], base, FLAT).lengths
    assert together[0] < 8
