"""The slots of one request that hold the states of layers which keep one in place of K and V.

A slot holds the states of all such layers after some tokens of a request. Slots are handed out, shared and
found by content as blocks are (`cache/pool.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from outrider.cache.pool import BlockPool


class StateTable:
    """`slots[n]` holds the states after a request's first n tokens: of a tree, after the row that is kept at
    place n - 1.

    Before the first token all states are zero, and have no slot. What was published is shared and never
    written again: a row that computes a state writes it to a slot of its own.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._slots: dict[int, int] = {}

    @property
    def slots(self) -> Mapping[int, int]:
        return self._slots

    @property
    def num_free(self) -> int:
        """Positions for which there are slots yet."""
        return self._pool.num_free

    def missing(self, positions: Iterable[int]) -> list[int]:
        """Those of the positions that have no slot."""
        return [position for position in positions if position not in self._slots]

    def extend(self, positions: Iterable[int]) -> None:
        """Have a slot for each of the positions. Raises OutOfBlocks where a slot is missing and none is
        free."""
        for position in self.missing(positions):
            self._slots[position] = self._pool.allocate()

    def holds(self, digest: bytes) -> bool:
        """Whether the states after this content can be taken."""
        return self._pool.holds(digest)

    def adopt(self, position: int, digest: bytes) -> None:
        """Take the states after this content, of so many tokens."""
        self._slots[position] = self._pool.take(digest)

    def publish(self, position: int, digest: bytes) -> None:
        """Make the states after this content findable, if there is a slot with them."""
        if position in self._slots:
            self._pool.publish(self._slots[position], digest)

    def move(self, places: Sequence[int], to: int) -> None:
        """Keep a path of a tree, whose rows are kept at these places, ascending, as if it were a chain from
        place `to` on; none of these lies behind the one that moves there."""
        for end, place in enumerate(places, start=to + 1):
            self._slots[end], self._slots[place + 1] = self._slots[place + 1], self._slots[end]

    def keep(self, position: int) -> bool:
        """Give back all slots but that of one position; False where it has none, and is not the beginning."""
        found = position in self._slots
        for other in [one for one in self._slots if one != position]:
            self._pool.release(self._slots.pop(other))
        return found or position == 0
