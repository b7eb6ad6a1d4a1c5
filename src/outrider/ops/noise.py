"""Counter-based randomness: a value is a function of (key, position, token), with no state.

SplitMix64 (Steele, Lea and Flood, 2014): the n-th value of a stream is a bijective mix of its key plus n
times an odd constant. So a restart, a preemption or another batch finds the same values again.
"""

from __future__ import annotations

from collections.abc import Iterable

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)


def mix(value: int) -> int:
    """The SplitMix64 finaliser on one 64-bit integer."""
    value &= MASK
    value = ((value ^ (value >> SHIFTS[0])) * FACTORS[0]) & MASK
    value = ((value ^ (value >> SHIFTS[1])) * FACTORS[1]) & MASK
    return value ^ (value >> SHIFTS[2])


def folded(parts: Iterable[int], key: int = 0) -> int:
    """A key that goes on from `key` with these parts, whose order matters."""
    for part in parts:
        key = mix(mix(key + GOLDEN) ^ part)
    return key
