"""Which replica a request goes to: where its prompt is cached, unless others have less to do."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

BLOCKS_OF_A_REQUEST = 4
"""Blocks of a cached prompt that outweigh one request more that a replica has."""
BOUND = 1.5
"""A replica gets no request beyond this many times the mean (Mirrokni et al., 2018, consistent hashing with
bounded loads), and SPARE more, since few requests are uneven by themselves."""
SPARE = 3


class PrefixTable:
    """The beginnings of prompts that replicas were sent, and so have cached.

    blocks: that are remembered of each, the last used ones.
    """

    def __init__(self, blocks: int = 2**16) -> None:
        self._blocks = blocks
        self._of: dict[str, OrderedDict[bytes, None]] = {}

    def learn(self, replica: str, prefix: Sequence[bytes]) -> None:
        """A replica reads a prompt. prefix: digests of its blocks, each of which stands for all before it."""
        known = self._of.setdefault(replica, OrderedDict())
        for digest in reversed(prefix):  # the first blocks are those that most share, and go last
            known[digest] = None
            known.move_to_end(digest)
        while len(known) > self._blocks:
            known.popitem(last=False)

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all others: they are gone, and their caches too."""
        for gone in self._of.keys() - set(replicas):
            del self._of[gone]

    def matched(self, replica: str, prefix: Sequence[bytes]) -> int:
        """Blocks at the beginning of a prompt that a replica has."""
        known = self._of.get(replica, ())
        return next((number for number, digest in enumerate(prefix) if digest not in known), len(prefix))

    def ranked(self, prefix: Sequence[bytes], loads: Mapping[str, int]) -> list[str]:
        """The replicas, the one to take first. loads: the requests that each has.

        Where nothing speaks for one, equal prompts still go to the same, whichever ingress asks.
        """
        most = math.ceil(BOUND * (sum(loads.values()) + 1) / max(1, len(loads))) + SPARE
        least = min(loads.values(), default=0)
        first = prefix[0] if prefix else b""

        def order(replica: str) -> tuple[bool, int, int, bytes]:
            load = loads[replica]
            gain = self.matched(replica, prefix) - BLOCKS_OF_A_REQUEST * (load - least)
            return load >= most, -gain, load, blake2b(first + replica.encode(), digest_size=8).digest()

        return sorted(loads, key=order)
