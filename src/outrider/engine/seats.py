"""The seats of an asynchronous engine: how many sequences may be in it, and whose they are."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from outrider.engine.generation import Generation, QueueFull
from outrider.errors import RequestError

RECENT = 32  # departures over which the time until the next one is estimated


class Seats:
    """A seat for each sequence of the calls that are in the engine, running and waiting.

    capacity: how many there are. Only the event loop's thread touches them.
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.taken: set[Generation] = set()
        """The calls that have seats."""
        self.all_free = asyncio.Event()
        self.all_free.set()
        self._departures: deque[float] = deque(maxlen=RECENT)

    @property
    def num_sequences(self) -> int:
        """Seats that are taken."""
        return sum(generation.sequences for generation in self.taken)

    def check_fits(self, sequences: int) -> None:
        """Raise RequestError for more sequences than there are seats."""
        if sequences > self.capacity:
            raise RequestError(
                f"the request asks for {sequences} sequences, prompts times n; the server takes "
                f"{self.capacity} at a time at most"
            )

    def take(self, generation: Generation) -> None:
        """Seat a call. Raises RequestError where it never fits, QueueFull where it does not now."""
        self.check_fits(generation.sequences)
        there = self.num_sequences
        if there + generation.sequences > self.capacity:
            raise QueueFull(
                f"the queue is full: {there} sequences are running or waiting, and {self.capacity} may; "
                "try again later",
                self._retry_after(),
            )
        self.taken.add(generation)
        self.all_free.clear()

    def free(self, generation: Generation, *, finished: bool = False) -> None:
        """The seats of a call are free again. finished: it has its whole output."""
        self.taken.discard(generation)
        if finished:
            self._departures.append(monotonic())
        if not self.taken:
            self.all_free.set()

    def _retry_after(self) -> float:
        """The mean time between the last departures."""
        if len(self._departures) < 2:
            return 1.0
        return (self._departures[-1] - self._departures[0]) / (len(self._departures) - 1)
