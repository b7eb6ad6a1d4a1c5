"""Blocks of the K/V cache: reference counts, and which block holds which content."""

from __future__ import annotations

from collections import OrderedDict


class OutOfBlocks(Exception):
    """No block is free and none can be evicted: the scheduler has to make room."""


class BlockPool:
    """`num_blocks` blocks. A released block that was published keeps its content until it is reused.

    Free blocks without content go first, then the least recently released published one.

    `reserve` more blocks, numbered after the others, can be had between `lend` and `reclaim`. They go last
    and are never found by content, so that they are soon free again once the others suffice.

    window: positions that a row sees, in the layers whose K and V the blocks hold; None: all. size: blocks
    with the reserve, lent or not.
    """

    def __init__(self, num_blocks: int, reserve: int = 0, window: int | None = None) -> None:
        self.reserve = reserve
        self.size = num_blocks + reserve
        self.window = window
        self._own = num_blocks
        self._lent = False
        self._spare = list(range(self.size - 1, num_blocks - 1, -1))  # free ones of the reserve
        self._references = [0] * self.size
        self._empty = list(range(num_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # published, referenced by nobody
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks there are to use, the reserve counted while it is lent."""
        return self._own + (self.reserve if self._lent else 0)

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` could hand out."""
        return len(self._empty) + len(self._idle) + (len(self._spare) if self._lent else 0)

    def has_free(self, count: int) -> bool:
        """Whether `allocate` could hand out so many."""
        return count <= len(self._empty) or count <= self.num_free

    def lend(self) -> None:
        """Make the reserve usable."""
        self._lent = True

    def reclaim(self) -> bool:
        """Take the reserve back; False, with nothing changed, if a block of it is in use."""
        if len(self._spare) < self.reserve:
            return False
        self._lent = False
        return True

    def allocate(self) -> int:
        """A block with one reference and no content. Raises OutOfBlocks."""
        if self._empty:
            block = self._empty.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            del self._block_of[self._digest_of.pop(block)]
        elif self._lent and self._spare:
            block = self._spare.pop()
        else:
            raise OutOfBlocks
        self._references[block] = 1
        return block

    def release(self, block: int) -> None:
        """Give one reference back."""
        if self._references[block] == 0:
            raise ValueError(f"block {block} is released more often than it was taken")
        self._references[block] -= 1
        if self._references[block] == 0:
            if block >= self._own:
                self._spare.append(block)
            elif block in self._digest_of:
                self._idle[block] = None
            else:
                self._empty.append(block)

    def publish(self, block: int, digest: bytes) -> None:
        """Make a full block findable; the first block published with a content stays the one found.

        A block of the reserve is not: who took it again and again would keep it from being reclaimed.
        """
        if block < self._own and digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def holds(self, digest: bytes) -> bool:
        """Whether a block with this content can be taken."""
        return digest in self._block_of

    def take(self, digest: bytes) -> int:
        """The block with this content, which the pool has to hold, with one more reference."""
        block = self._block_of[digest]
        self._idle.pop(block, None)
        self._references[block] += 1
        return block

    def unpublish(self) -> None:
        """Find no block by its content any more; those that somebody has stay theirs."""
        self._empty += self._idle
        self._idle.clear()
        self._digest_of.clear()
        self._block_of.clear()
