"""Block pools: references, content, the reserve, and memory that is given back."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from outrider.cache.pages import release_pages
from outrider.cache.pool import BlockPool, OutOfBlocks
from outrider.cache.pools import Pools


def published(pool: BlockPool, *digests: bytes) -> list[int]:
    """Blocks taken and published, in this order."""
    blocks = [pool.allocate() for _ in digests]
    for block, digest in zip(blocks, digests, strict=True):
        pool.publish(block, digest)
    return blocks


def test_the_least_recently_released_block_is_reused_first() -> None:
    pool = BlockPool(3)
    a, b, c = published(pool, b"a", b"b", b"c")
    for block in (b, c, a):
        pool.release(block)
    assert pool.take(b"b") == b  # used again, so now the most recent
    pool.release(b)
    assert [pool.allocate() for _ in range(3)] == [c, a, b]
    assert not any(pool.holds(digest) for digest in (b"a", b"b", b"c"))


def test_blocks_without_content_are_reused_before_any_is_evicted() -> None:
    pool = BlockPool(3)
    (a,) = published(pool, b"a")
    plain = pool.allocate()
    pool.release(a)
    pool.release(plain)
    assert a not in {pool.allocate(), pool.allocate()}
    assert pool.take(b"a") == a


def test_double_release() -> None:
    pool = BlockPool(2)
    block = pool.allocate()
    pool.release(block)
    with pytest.raises(ValueError, match=f"block {block} is released more often than it was taken"):
        pool.release(block)
    (shared,) = published(pool, b"a")
    assert pool.take(b"a") == shared
    pool.release(shared)
    pool.release(shared)
    with pytest.raises(ValueError):
        pool.release(shared)
    assert pool.num_free == 2


def test_shared_block_stays_until_its_last_reference_goes() -> None:
    pool = BlockPool(1)
    (block,) = published(pool, b"a")
    assert pool.take(b"a") == block
    pool.release(block)
    assert pool.num_free == 0
    with pytest.raises(OutOfBlocks):
        pool.allocate()
    pool.release(block)
    assert pool.num_free == 1


def test_the_first_block_with_a_content_stays_the_one_found() -> None:
    pool = BlockPool(2)
    first, second = published(pool, b"a", b"a")
    assert pool.take(b"a") == first
    pool.release(second)
    assert pool.allocate() == second, "it was never findable, so it is not kept"


# The reserve


def test_the_reserve_is_used_last_and_while_it_is_lent_only() -> None:
    pool = BlockPool(2, reserve=2)
    (a,) = published(pool, b"a")
    b = pool.allocate()
    pool.release(a)
    pool.lend()
    assert (pool.num_blocks, pool.num_free) == (4, 3)
    assert pool.allocate() == a, "what is kept for its content goes before the reserve"
    assert {pool.allocate(), pool.allocate()} == {2, 3}
    with pytest.raises(OutOfBlocks):
        pool.allocate()
    assert not pool.reclaim()
    pool.release(2)
    assert not pool.reclaim()
    pool.release(3)
    assert pool.reclaim()
    assert (pool.num_blocks, pool.num_free) == (2, 0)
    with pytest.raises(OutOfBlocks):
        pool.allocate()
    pool.release(b)
    assert pool.allocate() == b


def test_a_block_of_the_reserve_is_not_found_by_its_content() -> None:
    """Requests with the same beginning would hold it for ever."""
    pool = BlockPool(0, reserve=1)
    pool.lend()
    (block,) = published(pool, b"a")
    assert not pool.holds(b"a")
    pool.release(block)
    assert pool.reclaim()


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="pages are freed on Linux only")
def test_released_pages_are_freed_and_what_lies_beside_them_stays() -> None:
    tensor = np.ones(2**24, np.float32)  # 64 MiB
    before = resident()
    release_pages(tensor[2**22 + 1 : 2**24 - 1])
    assert before - resident() > 2**25
    assert tensor[: 2**22 + 1].min() == tensor[-1] == 1
    release_pages(tensor[:3])  # less than a page
    assert tensor[0] == 1


# Pools of several groups


def test_reserves_are_lent_and_taken_back_together() -> None:
    small, large = BlockPool(1, reserve=1), BlockPool(4, reserve=2)
    pools = Pools([small, large])
    assert (pools.num_blocks, pools.num_free, pools.reserve) == (5, 5, 3)
    pools.lend()
    assert (pools.num_blocks, small.num_blocks, large.num_blocks) == (8, 2, 6)
    blocks = [large.allocate() for _ in range(5)]
    assert not pools.reclaim()
    assert (pools.num_blocks, small.num_free, large.num_free) == (8, 2, 1), "nothing was changed"
    large.release(blocks[-1])
    assert pools.reclaim()
    assert (pools.num_blocks, pools.num_free) == (5, 1)


def test_the_fullest_group_counts() -> None:
    small, large = BlockPool(2, reserve=1), BlockPool(8)
    pools = Pools([small, large])
    assert pools.used == 0
    pools.lend()
    assert pools.spare(1.0)
    large.allocate()
    assert pools.used == 1 / 8
    assert pools.spare(0.5)
    small.allocate()
    assert pools.used == pytest.approx(1 / 3)
    assert pools.spare(0.5)
    small.allocate()
    assert not pools.spare(0.5), "one of two own blocks is needed besides the reserve"
    small.allocate()
    assert pools.used == 1
