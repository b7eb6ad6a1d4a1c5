"""The randomness of a request, as keys of streams of counter-based noise (`outrider.ops.noise`).

A key is the mix of seed, sequence, round and stream; a position is mixed in where a value is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from outrider.ops.noise import FACTORS, GOLDEN, SHIFTS, folded, mix


class Stream(IntEnum):
    """Independent streams. Sharing one between two uses would bias what is drawn."""

    TOKEN = 0  # the target's own token, and the coupled draft's
    ACCEPT = 1  # whether a drafted token stands
    RECOVER = 2  # the correction or bonus
    DRAFT = 3  # a draft that must be independent of the target's draw


@dataclass(frozen=True)
class Noise:
    """The randomness of one generated sequence: `sequence` tells the n samples of a request apart.

    round: apart from 0, tells noise that may be looked at in one round of drafting and not kept from that
    of the next round at the same positions.
    """

    seed: int
    sequence: int = 0
    round: int = 0

    def key(self, stream: Stream) -> int:
        """The key of all positions of a stream, an unsigned 64-bit number."""
        return _key(self.seed, self.sequence, self.round, stream)

    def of_round(self, start: int) -> Noise:
        """Noise that no other round sees; `start` tokens were generated when it began."""
        return replace(self, round=start + 1)

    def uniforms(self, stream: Stream, position: int, count: int) -> NDArray[np.float64]:
        """Uniform variates in [0, 1) for `count` positions from `position` on: [count]."""
        bits = [mix(key + GOLDEN) >> 11 for key in self._keys(stream, position, count)]
        return np.array(bits, np.float64) * 2.0**-53

    def gumbel(self, stream: Stream, position: int, count: int, vocab: int) -> NDArray[np.float32]:
        """Standard Gumbel variates for `count` positions from `position` on: [count, vocab]."""
        keys = np.array([*self._keys(stream, position, count)], np.uint64)
        tokens = np.arange(1, vocab + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            bits = keys[:, None] + tokens * np.uint64(GOLDEN)
            for shift, factor in zip(SHIFTS, FACTORS, strict=False):
                bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(SHIFTS[2])
        # The upper 52 bits in (0, 1), both ends excluded.
        uniforms = (((bits >> np.uint64(12)) + 0.5) * 2.0**-52).astype(np.float32)
        # -log(-log(1 - u)): the large values, which win, come from small u, where float32 is exact enough.
        noise: NDArray[np.float32] = -np.log(-np.log1p(-np.minimum(uniforms, np.float32(1 - 2.0**-24))))
        return noise

    def _keys(self, stream: Stream, position: int, count: int) -> Iterator[int]:
        key = self.key(stream)
        return (folded((position + i,), key) for i in range(count))


@lru_cache(maxsize=4096)
def _key(*parts: int) -> int:
    return folded(parts)
