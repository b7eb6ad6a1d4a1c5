"""Block tables of groups, against a memory that remembers what every position was computed from."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from outrider.cache.pool import BlockPool, OutOfBlocks
from outrider.cache.pools import Pools
from outrider.cache.table import BlockTable
from tests import planted

NUM_BLOCKS, RESERVE = 8, 4
DRAFT = (-1,)  # what a rejected draft leaves behind

few_tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12)  # of a tiny vocabulary: prefixes repeat
windows = st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=3)


def sees(window: int | None, row: int, position: int) -> bool:
    """Whether the row at a position attends to another position, before it or itself."""
    return position <= row and (window is None or row - position < window)


def digest_of(tokens: Sequence[int], block_size: int) -> bytes:
    """The digest of whole blocks of tokens."""
    digest = b""
    for first in range(0, len(tokens), block_size):
        digest = sha256(digest + array("q", tokens[first : first + block_size]).tobytes()).digest()
    return digest


class Running:
    """A request, and how many of its tokens are committed."""

    def __init__(self, table: BlockTable, tokens: list[int]) -> None:
        self.table, self.tokens, self.settled = table, tokens, 0


class Requests(RuleBasedStateMachine):
    """Requests that come, share prefixes, draft, roll back, are preempted and leave.

    K and V of a position depend on all tokens up to it, so `memory[group][block, offset]` holds just these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[int | None] = [None]
        self.pools = Pools([])
        self.running: list[Running] = []
        self.memory: list[dict[tuple[int, int], tuple[int, ...]]] = []
        self.block_size = 0

    @initialize(block_size=st.integers(1, 4), prefix_caching=st.booleans(), windows=windows)
    def start(self, block_size: int, prefix_caching: bool, windows: list[int | None]) -> None:
        self.block_size, self.prefix_caching, self.windows = block_size, prefix_caching, windows
        self.pools = Pools([BlockPool(NUM_BLOCKS, RESERVE, window) for window in windows])
        self.memory = [{} for _ in windows]

    def held(self, group: int) -> set[int]:
        return {block for request in self.running for block in request.table.tables[group] if block >= 0}

    def pick(self, data: st.DataObject) -> Running:
        return self.running[data.draw(st.integers(0, len(self.running) - 1))]

    def positions(self, index: int) -> range:
        return range(index * self.block_size, (index + 1) * self.block_size)

    def found(self, tokens: list[int], blocks: int) -> bool:
        """Whether all that the row after so many blocks sees is published."""
        row = blocks * self.block_size
        return all(
            pool.holds(digest_of(tokens[: (index + 1) * self.block_size], self.block_size))
            for pool, window in zip(self.pools.of_groups, self.windows, strict=True)
            for index in range(blocks)
            if any(sees(window, row, position) for position in self.positions(index))
        )

    def adopt(self, request: Running) -> None:
        request.table.truncate(0)
        most = (len(request.tokens) - 1) // self.block_size if self.prefix_caching else 0
        expected = max(blocks for blocks in range(most + 1) if self.found(request.tokens, blocks))
        found = request.table.adopt(request.tokens)
        assert found == request.table.filled == expected * self.block_size
        assert found < len(request.tokens), "one token is left to compute"
        request.settled = found

    @precondition(lambda self: len(self.running) < 5)
    @rule(tokens=few_tokens)
    def begin(self, tokens: list[int]) -> None:
        table = BlockTable(self.pools.of_groups, self.block_size, prefix_caching=self.prefix_caching)
        self.running.append(Running(table, tokens))
        self.adopt(self.running[-1])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), drafts=st.integers(0, 6))
    def step(self, data: st.DataObject, drafts: int) -> None:
        """Compute some known tokens and drafts, of which none is accepted."""
        request = self.pick(data)
        table, tokens = request.table, request.tokens
        done = table.filled + data.draw(st.integers(0, len(tokens) - table.filled))
        length = done + drafts
        missing = max(0, -(-length // self.block_size) - len(table.tables[0]))
        before = [list(blocks) for blocks in table.tables]
        free = [pool.num_blocks - len(self.held(g)) for g, pool in enumerate(self.pools.of_groups)]
        assert table.most == (len(before[0]) + min(free)) * self.block_size
        if missing > min(free):
            with pytest.raises(OutOfBlocks):
                table.extend(length)
            assert [list(blocks) for blocks in table.tables] == before
            assert [pool.num_free for pool in self.pools.of_groups] == free, "nothing was taken"
            return
        others = [self.held(group) for group in range(len(self.windows))]
        table.extend(length)
        for group, blocks in enumerate(table.tables):
            fresh = blocks[len(before[group]) :]
            assert blocks[: len(before[group])] == before[group]
            assert len(fresh) == len(set(fresh)) == missing
            assert others[group].isdisjoint(fresh)
            for position in range(table.filled, length):
                block, offset = divmod(position, self.block_size)
                content = tuple(tokens[: position + 1]) if position < done else DRAFT
                self.memory[group][blocks[block], offset] = content
        if data.draw(st.booleans()):
            table.truncate(done)  # advance does as much
        table.advance(tokens, done)
        request.settled = done

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=few_tokens)
    def generate(self, data: st.DataObject, more: list[int]) -> None:
        self.pick(data).tokens.extend(more)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt_and_resume(self, data: st.DataObject) -> None:
        request = self.pick(data)
        request.table.truncate(0)
        assert not any(request.table.tables)
        self.adopt(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        request = self.pick(data)
        request.table.truncate(0)
        self.running = [other for other in self.running if other is not request]

    @rule()
    def lend(self) -> None:
        self.pools.lend()
        assert all(pool.num_blocks == NUM_BLOCKS + RESERVE for pool in self.pools.of_groups)

    @rule()
    def reclaim(self) -> None:
        before, free = self.pools.num_blocks, self.pools.num_free
        used = any(block >= NUM_BLOCKS for group in range(len(self.windows)) for block in self.held(group))
        assert self.pools.reclaim() != used
        if used:
            assert (self.pools.num_blocks, self.pools.num_free) == (before, free), "nothing was changed"
            return
        assert all(pool.num_blocks == NUM_BLOCKS for pool in self.pools.of_groups)
        for memory in self.memory:
            for block, offset in list(memory):
                if block >= NUM_BLOCKS:
                    del memory[block, offset]

    @invariant()
    def every_position_that_is_seen_holds_its_own_tokens(self) -> None:
        for request in self.running:
            for memory, window, blocks in zip(self.memory, self.windows, request.table.tables, strict=True):
                for position in range(request.settled):
                    if sees(window, request.settled, position):
                        block, offset = divmod(position, self.block_size)
                        assert memory[blocks[block], offset] == tuple(request.tokens[: position + 1])

    @invariant()
    def blocks_are_held_where_something_is_seen_and_nowhere_else(self) -> None:
        for request in self.running:
            for window, blocks in zip(self.windows, request.table.tables, strict=True):
                assert len(blocks) == -(-request.settled // self.block_size)
                for index, block in enumerate(blocks):
                    seen = any(sees(window, request.settled, p) for p in self.positions(index))
                    ahead = self.positions(index)[-1] >= request.settled  # room in the last block
                    assert (block >= 0) == (seen or ahead)

    @invariant()
    def blocks_are_shared_by_equal_prefixes_only(self) -> None:
        for group in range(len(self.windows)):
            users: dict[int, set[tuple[int, ...]]] = {}
            for request in self.running:
                blocks = [block for block in request.table.tables[group] if block >= 0]
                assert len(set(blocks)) == len(blocks)
                for index, block in enumerate(request.table.tables[group]):
                    if block >= 0:
                        prefix = tuple(request.tokens[: (index + 1) * self.block_size])
                        users.setdefault(block, set()).add(prefix)
            assert all(len(prefixes) == 1 for prefixes in users.values())

    @invariant()
    def no_block_is_lost(self) -> None:
        for group, pool in enumerate(self.pools.of_groups):
            assert pool.num_free == pool.num_blocks - len(self.held(group))
            assert all(block < pool.num_blocks for block in self.held(group))

    def teardown(self) -> None:
        for request in self.running:
            request.table.truncate(0)
        assert self.pools.reclaim()
        assert all(pool.num_free == NUM_BLOCKS for pool in self.pools.of_groups[: len(self.memory)])


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("early", [1, -1])
def test_planted_fault_one_position_too_early_or_too_late(
    early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that is given back a row before the last one that sees it, or a row later than could be, is
    noticed."""

    planted.give_blocks_back(monkeypatch, early)
    quick = settings(
        TestRequests.settings, derandomize=True, database=None, phases=[Phase.generate], print_blob=False
    )
    with pytest.raises((AssertionError, KeyError, IndexError)):
        run_state_machine_as_test(Requests, settings=settings(quick, report_multiple_bugs=False))


def test_a_table_loses_its_end_before_its_beginning() -> None:
    """The beginning of a prompt is what most requests share."""
    pool = BlockPool(3)
    first = BlockTable([pool], 2, prefix_caching=True)
    first.extend(6)
    first.advance(range(6), 6)
    blocks = list(first.tables[0])
    first.truncate(0)
    assert pool.allocate() == blocks[-1]
    second = BlockTable([pool], 2, prefix_caching=True)
    assert second.adopt(range(7)) == 4
    assert second.tables == (blocks[:2],)


def test_nothing_is_found_in_the_middle() -> None:
    """Equal tokens after an unequal beginning are other content."""
    pool = BlockPool(4)
    first = BlockTable([pool], 2, prefix_caching=True)
    first.extend(4)
    first.advance([1, 2, 3, 4], 4)
    assert BlockTable([pool], 2, prefix_caching=True).adopt([9, 2, 3, 4, 5]) == 0
    assert BlockTable([pool], 2, prefix_caching=True).adopt([1, 2, 9, 4, 5]) == 2


def test_extend_that_fails_takes_nothing() -> None:
    pool = BlockPool(3)
    table = BlockTable([pool], 2, prefix_caching=False)
    table.extend(3)
    with pytest.raises(OutOfBlocks):
        table.extend(7)
    assert len(table.tables[0]) == 2
    assert pool.num_free == 1
    table.extend(6)
    assert pool.num_free == 0


def test_adopting_again_gives_back_what_was_adopted() -> None:
    pool = BlockPool(4)
    first, second = (BlockTable([pool], 2, prefix_caching=True) for _ in range(2))
    first.extend(4)
    first.advance([1, 2, 3, 4], 4)
    for _ in range(2):
        assert second.adopt([1, 2, 3, 4, 5]) == second.filled == 4
    second.truncate(0)
    first.truncate(0)
    assert pool.num_free == 4


class Stated:
    """Requests whose layers keep states, over one pool of slots that holds what each slot was computed
    from."""

    def __init__(self, slots: int) -> None:
        self.pool, self.blocks = BlockPool(slots), BlockPool(50)
        self.content: dict[int, tuple[int, ...]] = {}

    def table(self) -> BlockTable:
        return BlockTable([self.blocks], 2, prefix_caching=True, states=self.pool)

    def compute(self, table: BlockTable, known: Sequence[int], draft: Sequence[int], stands: int) -> None:
        """A pass over the rest of the known tokens and a draft, of which so much stands."""
        start, tokens = table.filled, [*known, *draft]
        if start:
            assert self.content[table.states[start]] == tuple(known[:start]), "what the first row reads"
        table.extend(len(tokens), len(draft))
        table.mark(len(known))
        written = [slot for end, slot in table.states.items() if end > start]
        assert len(written) == len(set(written))
        assert table.states.get(start) not in written
        self.content |= {slot: tuple(tokens[:end]) for end, slot in table.states.items() if end > start}
        table.advance(tokens, len(known) + stands)


@pytest.mark.parametrize("stands", range(4))
def test_the_state_after_the_last_token_that_stands_is_kept(stands: int) -> None:
    memory = Stated(6)
    table = memory.table()
    memory.compute(table, [1, 2, 3], [], 0)
    memory.compute(table, [1, 2, 3, 4], [5, 6, 7], stands)
    assert memory.content[table.states[4 + stands]] == tuple(range(1, 5 + stands))
    assert len(table.states) == 1
    assert memory.pool.num_free == 5


def test_a_prefix_is_adopted_up_to_the_last_state_that_is_there() -> None:
    memory = Stated(8)
    first = memory.table()
    memory.compute(first, [1, 2, 3, 4, 5], [], 0)  # one chunk: of the ends of blocks the last alone
    second = memory.table()
    assert second.adopt([1, 2, 3, 9]) == 0, "K and V are there, the state is not"
    assert second.adopt([1, 2, 3, 4, 9]) == 4
    memory.compute(second, [1, 2, 3, 4, 9], [], 0)
    for table in (first, second):
        table.truncate(0)
    assert memory.pool.num_free == memory.pool.num_blocks
    third = memory.table()
    assert third.adopt([1, 2, 3, 4, 5, 6]) == 4, "also when nobody has it any more"
    memory.compute(third, [1, 2, 3, 4, 5, 6], [], 0)


def test_states_of_a_draft_are_found_where_it_passed_the_end_of_a_block() -> None:
    memory = Stated(8)
    table = memory.table()
    memory.compute(table, [1, 2, 3], [4, 5, 6], 2)
    assert memory.table().adopt([1, 2, 3, 4, 7]) == 4
    assert memory.table().adopt([1, 2, 3, 4, 5, 6, 7]) == 4, "what fell is not found"


def test_too_few_slots_are_refused_and_nothing_is_taken() -> None:
    memory = Stated(4)
    table, other = memory.table(), memory.table()
    memory.compute(table, [1, 2, 3], [], 0)
    with pytest.raises(OutOfBlocks):
        table.extend(8, 3)
    assert (len(table.states), len(table.tables[0]), memory.pool.num_free) == (1, 2, 3)
    table.extend(4)
    assert table.room_for_draft(1, 3) == 0, "there is no other block"
    table.extend(8)
    assert table.room_for_draft(1, 3) == 1
    with pytest.raises(OutOfBlocks):
        other.extend(1)
    table.mark(5)
    assert memory.pool.num_free == 0


def test_without_the_state_at_its_end_all_is_forgotten() -> None:
    memory = Stated(8)
    table = memory.table()
    memory.compute(table, [1, 2, 3, 4, 5], [], 0)
    table.truncate(3)
    assert (table.filled, table.tables, dict(table.states)) == (0, ([],), {})
