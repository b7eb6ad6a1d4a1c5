"""Which replica a request goes to."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from benchmarks.fleet.replica import BLOCK, Replica
from benchmarks.fleet.workload import Request

BLOCKS_OF_A_REQUEST, BOUND, SPARE = 4, 1.5, 3
"""As in `outrider.cluster.prefixes`: cached blocks that outweigh one request more; and the most requests of a
replica, as times the mean and some."""


class Router(Protocol):
    """Chooses for each request, and hears of what it has to know."""

    def choose(self, request: Request) -> int:
        """The number of a replica."""

    def changed(self, replica: int) -> None:
        """Its load is another now."""

    def ended(self, requests: int) -> None:
        """So many requests have been answered."""

    def forget(self, conversation: int) -> None:
        """It has ended."""


class RoundRobin:
    """One after the other."""

    def __init__(self, replicas: Sequence[Replica], random: np.random.Generator) -> None:
        self._next, self._count = 0, len(replicas)

    def choose(self, request: Request) -> int:
        self._next = (self._next + 1) % self._count
        return self._next

    def changed(self, replica: int) -> None:
        """Nothing is looked at."""

    def ended(self, requests: int) -> None:
        """Nothing is counted."""

    def forget(self, conversation: int) -> None:
        """Nothing is kept."""


class LeastLoaded:
    """The one that has fewest requests; of several, one by chance."""

    def __init__(self, replicas: Sequence[Replica], random: np.random.Generator) -> None:
        self._replicas = replicas
        self._chance = random.permutation(len(replicas)).tolist()
        self._heap = [(0, chance, replica) for replica, chance in enumerate(self._chance)]
        heapq.heapify(self._heap)

    def choose(self, request: Request) -> int:
        return self.least()

    def least(self) -> int:
        """Entries of loads that are no longer true are dropped on the way."""
        while self._heap[0][0] != self._replicas[self._heap[0][2]].load:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def changed(self, replica: int) -> None:
        heapq.heappush(self._heap, (self._replicas[replica].load, self._chance[replica], replica))

    def ended(self, requests: int) -> None:
        """Nothing is counted."""

    def forget(self, conversation: int) -> None:
        """Nothing is kept."""


class PrefixAware:
    """Where the beginning of the prompt is cached, unless others have less to do: the rule of
    `outrider.cluster.prefixes.PrefixTable.ranked`.

    That one orders all replicas for each request. Here only those are compared that can be the first: such
    as were sent the conversation, and one of those with fewest requests.
    """

    def __init__(self, replicas: Sequence[Replica], random: np.random.Generator) -> None:
        self._replicas = replicas
        self._least = LeastLoaded(replicas, random)
        self._sent: dict[int, dict[int, int]] = {}
        self._requests = 0  # of all replicas

    def choose(self, request: Request) -> int:
        sent, blocks = self._sent.setdefault(request.conversation, {}), request.prompt // BLOCK
        least = self._least.least()
        fewest = self._replicas[least].load
        most = math.ceil(BOUND * (self._requests + 1) / len(self._replicas)) + SPARE

        def order(replica: int) -> tuple[bool, int, int]:
            load = self._replicas[replica].load
            return (
                load >= most,
                BLOCKS_OF_A_REQUEST * (load - fewest) - min(sent.get(replica, 0), blocks),
                load,
            )

        chosen = min([least, *sent], key=order)
        sent[chosen] = max(sent.get(chosen, 0), blocks)
        self._requests += 1
        return chosen

    def changed(self, replica: int) -> None:
        self._least.changed(replica)

    def ended(self, requests: int) -> None:
        self._requests -= requests

    def forget(self, conversation: int) -> None:
        self._sent.pop(conversation, None)


ROUTERS: dict[str, Callable[[Sequence[Replica], np.random.Generator], Router]] = {
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "prefix-aware": PrefixAware,
}
