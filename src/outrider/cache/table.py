"""The block table of one request: which blocks hold the K and V of its positions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

from outrider.cache.pool import BlockPool, OutOfBlocks


class BlockTable:
    """`blocks[i]` holds positions `i * block_size` onwards; positions below `filled` are valid.

    A full block of committed tokens is published under a hash of all tokens up to its end, so that a
    request with the same beginning can adopt it. Published blocks are never written again.
    """

    def __init__(self, pool: BlockPool, block_size: int, *, prefix_caching: bool) -> None:
        self.blocks: list[int] = []
        self.filled = 0
        self._pool = pool
        self._block_size = block_size
        self._prefix_caching = prefix_caching
        self._digests: list[bytes] = []  # of the full blocks published or adopted so far

    @property
    def capacity(self) -> int:
        """Positions that there is room for."""
        return len(self.blocks) * self._block_size

    def adopt(self, tokens: Sequence[int]) -> int:
        """Take published blocks that begin `tokens`; returns how many positions they fill.

        What the table held is given back. At least one token is left to compute, since its logits are needed.
        """
        self.truncate(0)
        full = (len(tokens) - 1) // self._block_size if self._prefix_caching else 0
        for index in range(full):
            digest = self._digest(tokens, index)
            block = self._pool.take(digest)
            if block is None:
                break
            self.blocks.append(block)
            self._digests.append(digest)
        self.filled = len(self.blocks) * self._block_size
        return self.filled

    def extend(self, length: int) -> None:
        """Have room for `length` positions. Raises OutOfBlocks and takes nothing if it cannot be had."""
        missing = -(-length // self._block_size) - len(self.blocks)
        if missing > self._pool.num_free:
            raise OutOfBlocks
        self.blocks.extend(self._pool.allocate() for _ in range(missing))

    def advance(self, tokens: Sequence[int], filled: int) -> None:
        """The K and V of positions below `filled` are those of `tokens[:filled]`; drop what is beyond."""
        self.truncate(filled)
        if self._prefix_caching:
            for index in range(len(self._digests), filled // self._block_size):
                self._digests.append(self._digest(tokens, index))
                self._pool.publish(self.blocks[index], self._digests[index])

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on. This is how a rejected draft is rolled back."""
        self.filled = length
        keep = -(-length // self._block_size)
        while len(self.blocks) > keep:
            self._pool.release(self.blocks.pop())
        del self._digests[length // self._block_size :]

    def _digest(self, tokens: Sequence[int], index: int) -> bytes:
        parent = self._digests[index - 1] if index else b""
        block = tokens[index * self._block_size : (index + 1) * self._block_size]
        return sha256(parent + array("q", block).tobytes()).digest()
