"""Slots for the states of layers that keep one of what came before, in place of K and V."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outrider.cache.pool import OutOfBlocks


class StatePool:
    """`size` slots, each of which holds the states of all such layers at one position of one request."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self) -> int:
        """A free slot. Raises OutOfBlocks."""
        if not self._free:
            raise OutOfBlocks
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back. Raises ValueError for one that is free."""
        if slot in self._free:
            raise ValueError(f"slot {slot} is released twice")
        self._free.append(slot)


class StateTable:
    """The slots of one request: `slots[n]` holds the states after its first n tokens.

    Before the first token all states are zero, and have no slot.
    """

    def __init__(self, pool: StatePool) -> None:
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
        """Have a slot for each of the positions."""
        for position in self.missing(positions):
            self._slots[position] = self._pool.allocate()

    def keep(self, position: int) -> bool:
        """Give back all slots but that of one position; False where it has none, and is not the beginning."""
        found = position in self._slots
        for other in [one for one in self._slots if one != position]:
            self._pool.release(self._slots.pop(other))
        return found or position == 0
