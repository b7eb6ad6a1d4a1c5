"""The block tables of one request: which blocks hold the K and V of its positions."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from hashlib import sha256

from outrider.cache.groups import blocks_behind
from outrider.cache.pool import BlockPool, OutOfBlocks
from outrider.cache.states import StateTable

GIVEN_BACK = -1
"""Stands in a table for a block that no row to come sees."""


def root_of(salt: str | None) -> bytes:
    """What comes before the first block: of no salt nothing, of a salt what no digest of a block can be."""
    return b"" if salt is None else b"salt" + sha256(salt.encode("utf-8", "surrogatepass")).digest()


def digest_of(parent: bytes, block: Sequence[int]) -> bytes:
    """Stands for the tokens of a block and all before them. parent: the digest of those, or the root."""
    return sha256(parent + array("q", block).tobytes()).digest()


class BlockTable:
    """`tables[g][i]` is the block in which the layers of group g keep positions `i * block_size` onwards.

    Positions below `filled` are valid. All tables have the same length. Where a group has a window, blocks
    behind it are given back to the group's pool, and `GIVEN_BACK` stands in their places.

    A full block of committed tokens is published under a hash of all tokens up to its end, so that a
    request with the same beginning can adopt it. Published blocks are never written again.

    pools: one a group. states: of slots, where layers keep states. The table has a slot for the states at
    `filled`, and for those after each row that may turn out to be the last one that stands. States are
    published as blocks are, where one has a slot at the end of a full block. salt: blocks are found by tables
    of the same salt alone.
    """

    def __init__(
        self,
        pools: Sequence[BlockPool],
        block_size: int,
        *,
        prefix_caching: bool,
        states: BlockPool | None = None,
        salt: str | None = None,
    ) -> None:
        self.filled = 0
        self._groups = tuple(GroupTable(pool, block_size) for pool in pools)
        self.tables = tuple(group.blocks for group in self._groups)
        self._block_size = block_size
        self._states = StateTable(states or BlockPool(0))
        self._has_states = states is not None
        self._prefix_caching = prefix_caching
        self._root = root_of(salt)
        self._digests: list[bytes] = []  # of the full blocks published or adopted so far

    @property
    def states(self) -> Mapping[int, int]:
        """The slots of states, by the number of tokens that they come after."""
        return self._states.slots

    @property
    def capacity(self) -> int:
        """Positions that there is room for."""
        return len(self.tables[0]) * self._block_size

    @property
    def most(self) -> int:
        """Positions that `extend` could make room for."""
        return self.capacity + min(group.pool.num_free for group in self._groups) * self._block_size

    def adopt(self, tokens: Sequence[int]) -> int:
        """Take published blocks that begin `tokens`; returns how many positions they fill: the most for which
        every group has all blocks that the next row sees.

        What the table held is given back. At least one token is left to compute, since its logits are needed.
        """
        self.truncate(0)
        if self._prefix_caching:
            self._digests = self._published(tokens)
            for group in self._groups:
                group.adopt(self._digests)
            if self._has_states and self._digests:
                self._states.adopt(len(self._digests) * self._block_size, self._digests[-1])
        self.filled = len(self._digests) * self._block_size
        return self.filled

    def extend(self, length: int, drafted: int = 0) -> None:
        """Have room for `length` positions, of which the last `drafted` may fall. Raises OutOfBlocks and
        takes nothing if a group, or the states, have none."""
        missing = -(-length // self._block_size) - len(self.tables[0])
        if missing <= 0 and not self._has_states:
            return
        ends = range(length - drafted, length + 1) if self._has_states else ()
        if self._has_states and len(self._states.missing(ends)) > self._states.num_free:
            raise OutOfBlocks
        for group in self._groups:
            if not group.pool.has_free(missing):
                raise OutOfBlocks
        if self._has_states:
            self._states.extend(ends)
        for group in self._groups:
            for _ in range(missing):
                group.blocks.append(group.pool.allocate())

    def room_for_draft(self, known: int, drafted: int) -> int:
        """The longest draft, up to `drafted`, for which there is room behind `known` more positions without
        another block; it is taken."""
        length = max(0, min(drafted, self.capacity - self.filled - known))
        if self._has_states:
            length = min(length, self._states.num_free)
            self.extend(self.filled + known + length, length)
        return length

    def mark(self, length: int) -> None:
        """Have a slot for the states at the last end of a block among the rows up to `length`, if one is
        free: where a prompt's chunk does not end with a block, they would be computed and lost."""
        end = length // self._block_size * self._block_size
        if self._prefix_caching and self._has_states and end > self.filled and self._states.num_free:
            self._states.extend([end])

    def advance(self, tokens: Sequence[int], filled: int, settled: int | None = None) -> None:
        """The K and V of positions below `filled` are those of `tokens[:filled]`, and stay so, or as far as
        `settled` only."""
        stay = filled if settled is None else min(filled, settled)
        if self._prefix_caching:
            for index in range(len(self._digests), stay // self._block_size):
                self._digests.append(self._digest(self._digests, tokens, index))
                for group in self._groups:
                    group.publish(index, self._digests[index])
                if self._has_states:
                    self._states.publish((index + 1) * self._block_size, self._digests[index])
        self.truncate(filled)
        self._give_back(stay)

    def move(self, places: Sequence[int], to: int) -> None:
        """Keep the states of a path of a tree. K and V are moved by the backend: see `Forward.move`."""
        if self._has_states:
            self._states.move(places, to)

    def settle(self, filled: int) -> None:
        """Positions below `filled` stay: drop what is beyond, and give back what no row to come sees."""
        self.truncate(filled)
        self._give_back(filled)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on, as those of a rejected draft. What is settled can only be
        forgotten as a whole: raises ValueError where the next row would see blocks that were given back."""
        if self._has_states and not self._states.keep(length):
            length = 0  # without the states there, all is computed again
        for group in self._groups:
            group.truncate(length)
        self.filled = length
        if len(self._digests) * self._block_size > length:
            del self._digests[length // self._block_size :]

    def _give_back(self, position: int) -> None:
        """Release the blocks that no row from `position` on sees, if it is not forgotten."""
        for group in self._groups:
            if group.pool.window is not None:
                group.give_back(min(position, self.filled))

    def _published(self, tokens: Sequence[int]) -> list[bytes]:
        """Digests of the most blocks that can be adopted."""
        whole = [group for group in self._groups if group.pool.window is None]
        digests: list[bytes] = []
        for index in range((len(tokens) - 1) // self._block_size):
            digest = self._digest(digests, tokens, index)
            if not all(group.pool.holds(digest) for group in whole):
                break
            digests.append(digest)
        windowed = [group for group in self._groups if group not in whole]
        while True:
            while self._has_states and digests and not self._states.holds(digests[-1]):
                digests.pop()
            gaps = [gap for group in windowed if (gap := group.gap(digests)) is not None]
            if not gaps:
                return digests
            del digests[min(gaps) :]  # whatever ends between this block and the next row sees it, too

    def _digest(self, before: Sequence[bytes], tokens: Sequence[int], index: int) -> bytes:
        parent = before[index - 1] if index else self._root
        return digest_of(parent, tokens[index * self._block_size : (index + 1) * self._block_size])


class GroupTable:
    """The table of one group of layers, in the pool of that group."""

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self.blocks: list[int] = []
        self.pool = pool
        self._block_size = block_size
        self._behind = 0  # blocks given back, all at the beginning

    def gap(self, digests: Sequence[bytes]) -> int | None:
        """The last block that the row after `digests` sees and that is not published; None where all are."""
        seen = range(self._blocks_behind(len(digests) * self._block_size), len(digests))
        return next((index for index in reversed(seen) if not self.pool.holds(digests[index])), None)

    def adopt(self, digests: Sequence[bytes]) -> None:
        """Take the blocks that the row after `digests` sees, of which `gap` has found all."""
        self._behind = self._blocks_behind(len(digests) * self._block_size)
        self.blocks.extend([GIVEN_BACK] * self._behind)
        self.blocks.extend(self.pool.take(digest) for digest in digests[self._behind :])

    def publish(self, index: int, digest: bytes) -> None:
        """Make a full block findable, unless it was given back."""
        if self.blocks[index] != GIVEN_BACK:
            self.pool.publish(self.blocks[index], digest)

    def give_back(self, position: int) -> None:
        """Release the blocks that no row from `position` on sees."""
        behind = self._blocks_behind(position)
        for index in range(self._behind, behind):
            self.pool.release(self.blocks[index])
            self.blocks[index] = GIVEN_BACK
        self._behind = max(self._behind, behind)

    def truncate(self, length: int) -> None:
        if self._behind and length > 0 and self._blocks_behind(length) < self._behind:
            raise ValueError(
                f"length = {length} lies behind what is settled: the next row sees blocks that are given back"
            )
        keep = -(-length // self._block_size)
        while len(self.blocks) > keep:
            block = self.blocks.pop()
            if block != GIVEN_BACK:
                self.pool.release(block)
        if self._behind > keep:
            self._behind = keep

    def _blocks_behind(self, position: int) -> int:
        return blocks_behind(self.pool.window, position, self._block_size)
