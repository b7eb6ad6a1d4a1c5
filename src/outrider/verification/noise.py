"""Counter-based randomness: a value is a function of (seed, stream, position, token), with no state.

SplitMix64 (Steele, Lea and Flood, 2014): the n-th value of a stream is a bijective mix of its key plus n
times an odd constant. A key is the mix of seed, sequence, stream and position, so a restart, a preemption
or another batch finds the same values again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)


class Stream(IntEnum):
    """Independent streams. Sharing one between two uses would bias what is drawn."""

    TOKEN = 0  # the target's own token, and the coupled draft's
    ACCEPT = 1  # whether a drafted token stands
    RECOVER = 2  # the correction or bonus
    DRAFT = 3  # a draft that must be independent of the target's draw


def mix(value: int) -> int:
    """The SplitMix64 finaliser on one 64-bit integer."""
    value &= MASK
    value = ((value ^ (value >> SHIFTS[0])) * FACTORS[0]) & MASK
    value = ((value ^ (value >> SHIFTS[1])) * FACTORS[1]) & MASK
    return value ^ (value >> SHIFTS[2])


@dataclass(frozen=True)
class Noise:
    """The randomness of one generated sequence: `sequence` tells the n samples of a request apart.

    round: apart from 0, tells noise that may be looked at in one round of drafting and not kept from that
    of the next round at the same positions.
    """

    seed: int
    sequence: int = 0
    round: int = 0

    def gumbel(self, stream: Stream, position: int, count: int, vocab: int, device: torch.device) -> Tensor:
        """Standard Gumbel variates for `count` positions from `position` on: float32 [count, vocab]."""
        keys = torch.tensor([_signed(key) for key in self.keys(stream, position, count)], device=device)
        tokens = torch.arange(1, vocab + 1, device=device) * _signed(GOLDEN)
        uniforms = _uniform(_mix(keys[:, None] + tokens))
        # -log(-log(1 - u)): the large values, which win, come from small u, where float32 is exact enough.
        return uniforms.neg_().log1p_().neg_().log_().neg_()

    def uniforms(self, stream: Stream, position: int, count: int) -> Tensor:
        """Uniform variates in [0, 1) for `count` positions from `position` on: float64 [count]."""
        bits = [mix(key + GOLDEN) >> 11 for key in self.keys(stream, position, count)]
        return torch.tensor(bits, dtype=torch.float64) * 2.0**-53

    def keys(self, stream: Stream, position: int, count: int) -> list[int]:
        """The keys of `count` positions from `position` on, each an unsigned 64-bit number."""
        return [self._key(stream, position + i) for i in range(count)]

    def _key(self, stream: Stream, position: int) -> int:
        key = 0
        for part in (self.seed, self.sequence, self.round, stream, position):
            key = mix(mix(key + GOLDEN) ^ part)  # the order of the parts matters
        return key


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix(values: Tensor) -> Tensor:
    """`mix` on int64, in place; products wrap as they do on 64-bit integers without a sign."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        values = values.bitwise_xor_(_shift_right(values, shift)).mul_(_signed(factor))
    return values.bitwise_xor_(_shift_right(values, SHIFTS[2]))


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """A logical shift: PyTorch's own copies the sign."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _uniform(bits: Tensor) -> Tensor:
    """The upper 52 bits as float32 in (0, 1), both ends excluded."""
    uniforms = (_shift_right(bits, 12).double() + 0.5).mul_(2.0**-52).float()
    return uniforms.clamp_(max=1 - 2.0**-24)
