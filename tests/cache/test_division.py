"""Bytes divided between groups of layers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.cache.division import Division, GroupSize, StateSize

windows = st.none() | st.integers(1, 40)
block_sizes = st.integers(1, 7)


@st.composite
def divisions(draw: st.DrawFn) -> Division:
    block_size = draw(block_sizes)
    size = st.builds(GroupSize, windows, st.integers(1, 12), st.just(block_size), st.integers(1, 50))
    return Division(tuple(draw(st.lists(size, min_size=1, max_size=4))), draw(st.integers(1, 5)))


def most_held(size: GroupSize, positions: int) -> int:
    """Blocks in which there is a position that a row from `first` on sees, or one that is added, wherever a
    request stands."""
    most = 0
    for first in range(positions):
        seen = 0 if size.window is None else max(0, first - size.window + 1)
        last = min(positions, first + size.ahead) - 1
        most = max(most, last // size.block_size - seen // size.block_size + 1)
    return most


@settings(max_examples=100, deadline=None)
@given(window=windows, ahead=st.integers(1, 12), block_size=block_sizes)
def test_blocks_of_a_request_are_those_that_it_holds_at_most(
    window: int | None, ahead: int, block_size: int
) -> None:
    size = GroupSize(window, ahead, block_size, 1)
    for positions in (1, 2, 5, 23, 120):
        assert most_held(size, positions) <= size.blocks(positions)
    assert most_held(size, 400) == size.blocks(400), "and no more are asked for than that"


@settings(max_examples=200, deadline=None)
@given(division=divisions(), positions=st.integers(1, 200), extra=st.integers(0, 20_000))
def test_a_budget_is_kept_and_used(division: Division, positions: int, extra: int) -> None:
    budget = division.bytes_of_one(positions) + extra
    level = division.level(budget, positions)
    blocks = division.blocks(level, positions)
    needs = [size.blocks(positions) for size in division.sizes]
    assert division.bytes(blocks) <= budget
    assert all(need <= own <= division.requests * need for need, own in zip(needs, blocks, strict=True))
    more = division.blocks(level + 1, positions)
    assert division.bytes(more) > budget or more == blocks == tuple(division.requests * n for n in needs)
    # Whatever requests the largest group has room for, the others have room for too.
    for own, need in zip(blocks, needs, strict=True):
        assert own >= min(level, division.requests * need)


@settings(max_examples=100, deadline=None)
@given(division=divisions(), budget=st.integers(0, 20_000))
def test_the_longest_for_a_budget(division: Division, budget: int) -> None:
    for longest, needed in (
        (division.longest_of_one, division.bytes_of_one),
        (division.longest_of_many, division.bytes_of_many),
    ):
        found = longest(budget, 300)
        assert needed(found) <= budget
        assert found == 300 or needed(found + 1) > budget
    assert division.longest_of_many(budget, 300) <= division.longest_of_one(budget, 300)


def test_groups_that_see_all_have_equally_many() -> None:
    division = Division((GroupSize(None, 8, 16, 100), GroupSize(None, 8, 16, 20)), 3)
    assert division.bytes_of_one(33) == division.bytes_of_many(33) == 3 * 120
    assert division.longest_of_one(10 * 120 + 119, 1000) == 160
    assert division.blocks(division.level(10 * 120 + 119, 33), 33) == (9, 9), "what three requests can use"
    assert division.blocks(division.level(8 * 120 + 119, 33), 33) == (8, 8)


@pytest.mark.parametrize("budget", [2000, 4000, 10_000, 30_000])
def test_many_short_requests_find_as_much_room_as_without_windows(budget: int) -> None:
    """A layer with a window is not the first to be full, and never holds more than the windows of all."""
    mixed = Division((GroupSize(None, 4, 4, 10), GroupSize(13, 4, 4, 50)), 8)
    positions = mixed.longest_of_many(budget, 400)
    whole, windowed = mixed.blocks(mixed.level(budget, positions), positions)
    assert windowed == min(whole, 8 * mixed.sizes[1].blocks(positions))
    assert whole >= budget // 60, "no fewer than with a window that sees all"
    assert (whole > budget // 60) == (windowed < whole)


@settings(max_examples=200, deadline=None)
@given(
    slots=st.integers(2, 6),
    slot_bytes=st.integers(1, 300),
    requests=st.integers(1, 5),
    positions=st.integers(1, 200),
    extra=st.integers(0, 20_000),
)
def test_slots_for_states_get_what_blocks_get(
    slots: int, slot_bytes: int, requests: int, positions: int, extra: int
) -> None:
    division = Division((GroupSize(None, 8, 4, 30), StateSize(slots, 4, slot_bytes, 30)), requests)
    budget = division.bytes_of_one(positions) + extra
    blocks, held = division.blocks(division.level(budget, positions), positions)
    assert division.bytes((blocks, held)) <= budget
    assert slots <= held <= requests * slots
    most_blocks = requests * -(-positions // 4)
    if held > slots and blocks < most_blocks:
        assert held * slot_bytes <= blocks * 30, "states take no more than K and V"
    if held < requests * slots and blocks > most_blocks // requests:
        assert (held + 1) * slot_bytes > blocks * 30, "and no less"
    most = division.bytes([requests * size.blocks(positions) for size in division.sizes])
    assert division.blocks(division.level(most, positions), positions)[1] == requests * slots
    assert division.longest_of_one(division.bytes_of_one(positions), positions) == positions
