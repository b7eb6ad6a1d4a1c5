"""The counter-based noise of `outrider.ops.noise` in kernels."""

from __future__ import annotations

import triton
import triton.language as tl

from outrider.ops.noise import FACTORS, GOLDEN, SHIFTS

STEP = tl.constexpr(GOLDEN)
FIRST, SECOND = tl.constexpr(FACTORS[0]), tl.constexpr(FACTORS[1])
SHIFT_0, SHIFT_1, SHIFT_2 = (tl.constexpr(shift) for shift in SHIFTS)


@triton.jit
def random_bits(key, token):
    """The random bits of a token, uint64: `mix` of the key and the token's place in the stream."""
    bits = key + (token.to(tl.uint64) + 1) * STEP
    bits = (bits ^ (bits >> SHIFT_0)) * FIRST
    bits = (bits ^ (bits >> SHIFT_1)) * SECOND
    return bits ^ (bits >> SHIFT_2)


@triton.jit
def uniform(bits):
    """The upper 52 bits as float32 in (0, 1), both ends excluded."""
    wide = ((bits >> 12).to(tl.int64).to(tl.float64) + 0.5) * 2.220446049250313e-16
    return tl.minimum(wide.to(tl.float32), 0.99999994)


@triton.jit
def gumbel(key, token):
    """A standard Gumbel variate, float32: -log(-log(1 - u)).

    Small u, which win, are lost in 1 - u: there the series of the logarithm is exact enough.
    """
    u = uniform(random_bits(key, token))
    series = u * (1.0 + u * (0.5 + u * (0.33333334 + u * (0.25 + u * (0.2 + u * 0.16666667)))))
    return -tl.log(tl.where(u < 0.03125, series, -tl.log(1.0 - u)))
