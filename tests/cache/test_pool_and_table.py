"""Block pool and block tables, against a memory that remembers what every position was computed from."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outrider.cache.pages import release_pages
from outrider.cache.pool import BlockPool, OutOfBlocks
from outrider.cache.table import BlockTable

NUM_BLOCKS, RESERVE = 8, 4
DRAFT = (-1,)  # what a rejected draft leaves behind

few_tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12)  # of a tiny vocabulary: prefixes repeat


class Requests(RuleBasedStateMachine):
    """Requests that come, share prefixes, draft, roll back, are preempted and leave.

    K and V of a position depend on all tokens up to it, so `memory[block, offset]` holds just these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, RESERVE)
        self.running: list[tuple[BlockTable, list[int]]] = []
        self.memory: dict[tuple[int, int], tuple[int, ...]] = {}
        self.block_size = 0

    @initialize(block_size=st.integers(1, 4), prefix_caching=st.booleans())
    def start(self, block_size: int, prefix_caching: bool) -> None:
        self.block_size, self.prefix_caching = block_size, prefix_caching

    def held(self) -> set[int]:
        return {block for table, _ in self.running for block in table.blocks}

    def pick(self, data: st.DataObject) -> tuple[BlockTable, list[int]]:
        return self.running[data.draw(st.integers(0, len(self.running) - 1))]

    def adopt(self, table: BlockTable, tokens: list[int]) -> None:
        found = table.adopt(tokens)
        assert found == table.filled == len(table.blocks) * self.block_size
        assert found < len(tokens), "one token is left to compute"
        assert found == 0 or self.prefix_caching

    @precondition(lambda self: len(self.running) < 5)
    @rule(tokens=few_tokens)
    def begin(self, tokens: list[int]) -> None:
        table = BlockTable(self.pool, self.block_size, prefix_caching=self.prefix_caching)
        self.running.append((table, tokens))
        self.adopt(table, tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), drafts=st.integers(0, 6))
    def step(self, data: st.DataObject, drafts: int) -> None:
        """Compute some known tokens and drafts, of which none is accepted."""
        table, tokens = self.pick(data)
        done = table.filled + data.draw(st.integers(0, len(tokens) - table.filled))
        length = done + drafts
        missing = max(0, -(-length // self.block_size) - len(table.blocks))
        before, free = list(table.blocks), self.pool.num_blocks - len(self.held())
        if missing > free:
            with pytest.raises(OutOfBlocks):
                table.extend(length)
            assert (table.blocks, self.pool.num_free) == (before, free), "nothing was taken"
            return
        others = self.held()
        table.extend(length)
        fresh = table.blocks[len(before) :]
        assert table.blocks[: len(before)] == before
        assert len(fresh) == len(set(fresh)) == missing
        assert others.isdisjoint(fresh)
        for position in range(table.filled, length):
            block, offset = divmod(position, self.block_size)
            content = tuple(tokens[: position + 1]) if position < done else DRAFT
            self.memory[table.blocks[block], offset] = content
        if data.draw(st.booleans()):
            table.truncate(done)  # advance does as much
        table.advance(tokens, done)
        assert len(table.blocks) == -(-done // self.block_size), "the drafts' blocks went back"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=few_tokens)
    def generate(self, data: st.DataObject, more: list[int]) -> None:
        self.pick(data)[1].extend(more)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt_and_resume(self, data: st.DataObject) -> None:
        table, tokens = self.pick(data)
        table.truncate(0)
        assert table.blocks == []
        self.adopt(table, tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        request = self.pick(data)
        request[0].truncate(0)
        self.running = [other for other in self.running if other is not request]

    @rule()
    def lend(self) -> None:
        self.pool.lend()
        assert self.pool.num_blocks == NUM_BLOCKS + RESERVE

    @rule()
    def reclaim(self) -> None:
        before, free = self.pool.num_blocks, self.pool.num_free
        used = any(block >= NUM_BLOCKS for block in self.held())
        assert self.pool.reclaim() != used
        if used:
            assert (self.pool.num_blocks, self.pool.num_free) == (before, free), "nothing was changed"
            return
        assert self.pool.num_blocks == NUM_BLOCKS
        self.memory = {at: content for at, content in self.memory.items() if at[0] < NUM_BLOCKS}

    @invariant()
    def every_valid_position_holds_its_own_tokens(self) -> None:
        for table, tokens in self.running:
            for position in range(table.filled):
                block, offset = divmod(position, self.block_size)
                assert self.memory[table.blocks[block], offset] == tuple(tokens[: position + 1])

    @invariant()
    def blocks_are_shared_by_equal_prefixes_only(self) -> None:
        users: dict[int, set[tuple[int, ...]]] = {}
        for table, tokens in self.running:
            assert len(set(table.blocks)) == len(table.blocks)
            for index, block in enumerate(table.blocks):
                users.setdefault(block, set()).add(tuple(tokens[: (index + 1) * self.block_size]))
        assert all(len(prefixes) == 1 for prefixes in users.values())

    @invariant()
    def no_block_is_lost(self) -> None:
        assert self.pool.num_free == self.pool.num_blocks - len(self.held())
        assert all(block < self.pool.num_blocks for block in self.held())

    def teardown(self) -> None:
        for table, _ in self.running:
            table.truncate(0)
        assert self.pool.reclaim()
        assert self.pool.num_free == NUM_BLOCKS


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


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
    assert [pool.take(digest) for digest in (b"a", b"b", b"c")] == [None] * 3


def test_blocks_without_content_are_reused_before_any_is_evicted() -> None:
    pool = BlockPool(3)
    (a,) = published(pool, b"a")
    plain = pool.allocate()
    pool.release(a)
    pool.release(plain)
    assert a not in {pool.allocate(), pool.allocate()}
    assert pool.take(b"a") == a


def test_a_table_loses_its_end_before_its_beginning() -> None:
    """The beginning of a prompt is what most requests share."""
    pool = BlockPool(3)
    first = BlockTable(pool, 2, prefix_caching=True)
    first.extend(6)
    first.advance(range(6), 6)
    blocks = list(first.blocks)
    first.truncate(0)
    assert pool.allocate() == blocks[-1]
    second = BlockTable(pool, 2, prefix_caching=True)
    assert second.adopt(range(7)) == 4
    assert second.blocks == blocks[:2]


def test_nothing_is_found_in_the_middle() -> None:
    """Equal tokens after an unequal beginning are other content."""
    pool = BlockPool(4)
    first = BlockTable(pool, 2, prefix_caching=True)
    first.extend(4)
    first.advance([1, 2, 3, 4], 4)
    assert BlockTable(pool, 2, prefix_caching=True).adopt([9, 2, 3, 4, 5]) == 0
    assert BlockTable(pool, 2, prefix_caching=True).adopt([1, 2, 9, 4, 5]) == 2


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


def test_extend_that_fails_takes_nothing() -> None:
    pool = BlockPool(3)
    table = BlockTable(pool, 2, prefix_caching=False)
    table.extend(3)
    with pytest.raises(OutOfBlocks):
        table.extend(7)
    assert len(table.blocks) == 2
    assert pool.num_free == 1
    table.extend(6)
    assert pool.num_free == 0


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
    assert pool.take(b"a") is None
    pool.release(block)
    assert pool.reclaim()


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="pages are freed on Linux only")
def test_released_pages_are_freed_and_what_lies_beside_them_stays() -> None:
    tensor = torch.ones(2**24)  # 64 MiB
    before = resident()
    release_pages(tensor[2**22 + 1 : 2**24 - 1])
    assert before - resident() > 2**25
    assert tensor[: 2**22 + 1].min() == tensor[-1] == 1
    release_pages(tensor[:3])  # less than a page
    assert tensor[0] == 1


def test_adopting_again_gives_back_what_was_adopted() -> None:
    pool = BlockPool(4)
    first, second = (BlockTable(pool, 2, prefix_caching=True) for _ in range(2))
    first.extend(4)
    first.advance([1, 2, 3, 4], 4)
    for _ in range(2):
        assert second.adopt([1, 2, 3, 4, 5]) == second.filled == 4
    second.truncate(0)
    first.truncate(0)
    assert pool.num_free == 4
