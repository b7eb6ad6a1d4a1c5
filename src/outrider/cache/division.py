"""How bytes are divided between groups of layers, of one model or of several that share a budget."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupSize:
    """What the blocks of a group of layers take.

    window: positions that a row sees; None: all. ahead: positions that a request adds at most until its next
    commit. block_size: positions of a block; block_bytes: of K and V in one block, of all layers together.
    """

    window: int | None
    ahead: int
    block_size: int
    block_bytes: int

    def blocks(self, positions: int) -> int:
        """The blocks that a request of so many positions holds at most. With a window those from the first
        position that the next row sees to the last that is added, wherever in a block they begin."""
        whole = -(-positions // self.block_size)
        if self.window is None:
            return whole
        reach = self.window - 1 + self.ahead
        return min(whole, -(-(reach - 1) // self.block_size) + 1)

    @property
    def text_bytes(self) -> int:
        """The bytes that a block of a text takes."""
        return self.block_bytes

    def level(self, blocks: int) -> int:
        """The least level at which the group has so many blocks."""
        return blocks

    def at(self, level: int) -> int:
        """Blocks of the group at a level."""
        return level


@dataclass(frozen=True)
class StateSize:
    """What the slots for the states of a model's layers take.

    slots: that a request holds at most: one before its rows, and one after each that is verified.
    block_bytes: of a slot; beside: of a block of every group of layers that have K and V.

    A state may be as large as the K and V of thousands of positions. So slots get as many bytes as blocks
    do, as far as requests can use them.
    """

    slots: int
    block_size: int
    block_bytes: int
    beside: int

    @property
    def text_bytes(self) -> int:
        return 0  # however long a text is, its states are as large

    def blocks(self, positions: int) -> int:
        return self.slots

    def level(self, blocks: int) -> int:
        return -(-blocks * self.block_bytes // self.beside)

    def at(self, level: int) -> int:
        return level * self.beside // self.block_bytes


Size = GroupSize | StateSize


@dataclass(frozen=True)
class Division:
    """A budget of bytes and who shares it: groups of layers of these sizes, for `requests` at a time.

    Every group gets as many blocks as the others, but no more than all requests can use of it. So a group
    with a window is never the first to be full, whether many short requests run or a few long ones. Slots
    for states are set against blocks by their bytes (`StateSize`).
    """

    sizes: tuple[Size, ...]
    requests: int

    def bytes_of_one(self, positions: int) -> int:
        """The bytes with which a request of so many positions can run, if no other does."""
        return sum(size.block_bytes * size.blocks(positions) for size in self.sizes)

    def bytes_of_many(self, positions: int) -> int:
        """The bytes with which any requests can run that have so many positions together."""
        level = max(-(-positions // size.block_size) for size in self.sizes)
        return self.bytes([self._within(size, level, positions) for size in self.sizes])

    def longest_of_one(self, budget: int, most: int) -> int:
        """Positions, up to `most`, for which `bytes_of_one` is within the budget."""
        return _last(most, budget, self.bytes_of_one)

    def longest_of_many(self, budget: int, most: int) -> int:
        """Positions, up to `most`, for which `bytes_of_many` is within the budget."""
        return _last(most, budget, self.bytes_of_many)

    def level(self, budget: int, positions: int) -> int:
        """The most blocks of a group for which `blocks` are within the budget; none if it does not hold one
        request of so many positions."""
        most = max(size.level(self.requests * size.blocks(positions)) for size in self.sizes)
        return max(0, _last(most, budget, lambda level: self.bytes(self.blocks(level, positions))))

    def blocks(self, level: int, positions: int) -> tuple[int, ...]:
        """The blocks of each group: `level`, but no more than all requests of so many positions can use of
        it, and no less than one of them needs."""
        return tuple(self._within(size, level, positions) for size in self.sizes)

    def _within(self, size: Size, level: int, positions: int) -> int:
        need = size.blocks(positions)
        return max(need, min(size.at(level), self.requests * need))

    def bytes(self, blocks: Sequence[int]) -> int:
        """The bytes of so many blocks of each group."""
        return sum(size.block_bytes * number for size, number in zip(self.sizes, blocks, strict=True))


def _last(most: int, budget: int, needed: Callable[[int], int]) -> int:
    """The last number from 0 to `most` that needs no more than the budget, as all before it."""
    return bisect_right(range(most + 1), budget, key=needed) - 1
