"""Groups of layers by window, and what each gives back and finds again."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.cache.groups import Group, blocks_behind, groups_of
from outrider.cache.pool import BlockPool, OutOfBlocks
from outrider.cache.table import BlockTable
from tests.cache.test_table import digest_of, sees


def test_groups_are_layers_of_equal_windows() -> None:
    assert groups_of([None, None]) == (Group(None, (0, 1)),)
    assert groups_of([8]) == (Group(8, (0,)),)
    gemma = [8, 8, None, 8, 8, None, 8]
    assert groups_of(gemma) == (Group(8, (0, 1, 3, 4, 6)), Group(None, (2, 5)))
    assert [group.window for group in groups_of([None, 4, 8, 4])] == [None, 4, 8]


@pytest.mark.parametrize(
    ("window", "block_size"), [(1, 1), (1, 4), (4, 4), (5, 4), (6, 4), (7, 16), (64, 16)]
)
def test_blocks_behind_a_window(window: int, block_size: int) -> None:
    """By definition: a block is behind if no row from a position on sees any of it."""
    for position in range(4 * block_size + window):
        behind = blocks_behind(window, position, block_size)
        seen = [
            any(sees(window, position, p) for p in range(i * block_size, (i + 1) * block_size))
            for i in range(position // block_size)
        ]
        assert seen == [False] * behind + [True] * (len(seen) - behind)
        assert blocks_behind(None, position, block_size) == 0


def table_of(*windows: int | None, blocks: int = 16, block_size: int = 2) -> BlockTable:
    return BlockTable(
        [BlockPool(blocks, window=window) for window in windows], block_size, prefix_caching=True
    )


def pools_of(table: BlockTable) -> Any:
    return [group.pool for group in table._groups]


def test_a_group_without_room_keeps_the_others_from_taking_any() -> None:
    pools = [BlockPool(8), BlockPool(2, window=3)]
    table = BlockTable(pools, 2, prefix_caching=False)
    with pytest.raises(OutOfBlocks):
        table.extend(5)
    assert (table.tables, [pool.num_free for pool in pools]) == (([], []), [8, 2])
    table.extend(4)
    table.settle(3)  # the next row sees position 1
    with pytest.raises(OutOfBlocks):
        table.extend(5)
    table.settle(4)
    table.extend(6)
    assert [pool.num_free for pool in pools] == [5, 0]


def test_a_long_text_needs_no_more_blocks_than_its_window() -> None:
    table = table_of(None, 5, blocks=50)
    whole, windowed = pools_of(table)
    for done in range(0, 100, 4):
        table.extend(done + 4)
        assert windowed.num_blocks - windowed.num_free <= 5  # of 2 positions: 4 before, 4 new ones, wherever
        table.advance(range(100), done + 4)
    assert whole.num_free == 0
    assert [block < 0 for block in table.tables[1]] == [True] * 48 + [False] * 2
    assert len(table.tables[0]) == len(table.tables[1]) == 50
    table.truncate(0)
    assert (whole.num_free, windowed.num_free) == (50, 50)


def test_a_draft_can_be_rolled_back_to_what_is_settled_and_not_behind_it() -> None:
    table = table_of(3)
    table.extend(10)
    table.settle(7)
    table.extend(16)
    table.truncate(7)
    assert [block < 0 for block in table.tables[0]] == [True, True, False, False]
    with pytest.raises(ValueError, match="length = 5 lies behind what is settled"):
        table.truncate(5)
    table.truncate(0)
    assert not any(table.tables)
    table.extend(10)
    table.settle(3)  # from the beginning again
    assert [block < 0 for block in table.tables[0]] == [False, False]


def test_a_hit_needs_the_blocks_of_the_window_alone() -> None:
    first = table_of(None, 4)
    whole, windowed = pools_of(first)
    first.extend(16)
    first.advance(range(16), 16)
    first.truncate(0)
    second = BlockTable([whole, windowed], 2, prefix_caching=True)
    assert second.adopt(range(17)) == 16
    assert [block < 0 for block in second.tables[1]] == [True] * 6 + [False] * 2
    assert windowed.num_free == 14
    second.truncate(0)
    while windowed.num_free > 2:  # what was given back first is reused first, here all but the end
        windowed.allocate()
    assert second.adopt(range(17)) == 16
    assert second.adopt(range(16)) == 0, "a window before the last block is not there any more"
    assert second.tables == ([], [])


def test_the_longest_hit_of_all_groups() -> None:
    """Each group has its own gap; what ends behind one has to lie a window after it."""
    table = table_of(None, 4, 2)
    whole, wide, narrow = pools_of(table)
    table.extend(20)
    table.advance(range(20), 20)
    table.truncate(0)
    tokens = list(range(21))

    def without(pool: BlockPool, block: int) -> None:
        del pool._block_of[digest_of(tokens[: 2 * (block + 1)], 2)]

    assert table.adopt(tokens) == 20
    without(narrow, 9)
    assert table.adopt(tokens) == 18
    without(wide, 7)
    assert table.adopt(tokens) == 14
    without(narrow, 5)
    assert table.adopt(tokens) == 14
    without(whole, 3)
    assert table.adopt(tokens) == 6
    without(whole, 0)
    assert table.adopt(tokens) == 0
