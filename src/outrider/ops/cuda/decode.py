"""Reading weights in kernels: codes and factors from planes, in every format."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def floats(codes, at, real, kind: tl.constexpr):
    """Numbers of a dense matrix, without the scale of 'int8' and 'fp8'."""
    if kind == "":
        value = tl.load(codes + at, mask=real, other=0.0)
    elif kind == "int8":
        value = tl.load(codes + at, mask=real, other=0).to(tl.int8, bitcast=True).to(tl.float32)
    else:
        # float8_e4m3fn has four bits of exponent, float16 five: the same bits mean 256 times less there.
        byte = tl.load(codes + at, mask=real, other=0)
        bits = ((byte & 128).to(tl.uint16) << 8) | ((byte & 127).to(tl.uint16) << 7)
        value = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
        value = tl.where((byte & 127) == 127, float("nan"), value)
    return value


@triton.jit
def few_bits(plane, group, k, shift, n, outputs, bits: tl.constexpr):
    """Numbers of so many bits, of input k of a half, which begins at bit `shift`: see `formats._fields`."""
    count: tl.constexpr = 4 * bits
    byte = tl.load(plane + (group * count + k % count) * outputs + n).to(tl.int32)
    return byte >> (bits * (k // count) + shift) & ((1 << bits) - 1)


@triton.jit
def pair(codes, high, table, more, group, k, n, outputs, low_bits: tl.constexpr, high_bits: tl.constexpr,
         zero: tl.constexpr, scales: tl.constexpr, per: tl.constexpr, has_table: tl.constexpr):  # fmt: skip
    """The codes of inputs k and 16 + k of a group, float32. k, n: of shapes that go together."""
    if low_bits == 8:
        at = codes + (group * 32 + k) * outputs + n
        first = tl.load(at).to(tl.int8, bitcast=True).to(tl.int32)
        second = tl.load(at + 16 * outputs).to(tl.int8, bitcast=True).to(tl.int32)
    elif low_bits == 4:
        byte = tl.load(codes + (group * 16 + k) * outputs + n).to(tl.int32)
        first, second = byte & 15, byte >> 4
    else:
        first = few_bits(codes, group, k, 0, n, outputs, low_bits)
        second = few_bits(codes, group, k, 4, n, outputs, low_bits)
    if high_bits > 0:
        first = first | few_bits(high, group, k, 0, n, outputs, high_bits) << low_bits
        second = second | few_bits(high, group, k, 4, n, outputs, high_bits) << low_bits
    if has_table:
        low, upper_half = tl.load(table + first), tl.load(table + second)
    else:
        off = zero
        if scales == "zero":
            off = tl.load(more + (group // per) * outputs + n).to(tl.int32)
        low, upper_half = (first - off).to(tl.float32), (second - off).to(tl.float32)
    return low, upper_half


@triton.jit
def k_factor(factors, group, n, outputs):
    """The 6-bit factors of a group of Q4_K and Q5_K: of its scale, and of its minimum."""
    at = factors + ((group // 8) * 12 + group % 4) * outputs + n
    low = tl.load(at).to(tl.int32)
    mid = tl.load(at + 4 * outputs).to(tl.int32)
    top = tl.load(at + 8 * outputs).to(tl.int32)
    early = group % 8 < 4
    scale = tl.where(early, low & 63, (top & 15) | ((low >> 6) << 4))
    return scale.to(tl.float32), tl.where(early, mid & 63, (top >> 4) | ((mid >> 6) << 4)).to(tl.float32)


@triton.jit
def k3_factor(factors, number, n, outputs):
    """The 6-bit factor of 16 inputs of Q3_K."""
    at = factors + ((number // 16) * 12) * outputs + n
    number = number % 16
    low = tl.load(at + (number % 8) * outputs).to(tl.int32) >> (number // 8 * 4) & 15
    high = tl.load(at + (8 + number % 4) * outputs).to(tl.int32) >> (number // 4 * 2) & 3
    return ((low | high << 4) - 32).to(tl.float32)


@triton.jit
def xs_factor(factors, group, n, outputs):
    """The 6-bit factor of a group of IQ4_XS."""
    at = factors + ((group // 8) * 6) * outputs + n
    number = group % 8
    high = tl.load(at + (number // 4) * outputs).to(tl.int32) >> (number % 4 * 2) & 3
    low = tl.load(at + (2 + number // 2) * outputs).to(tl.int32) >> (number % 2 * 4) & 15
    return ((low | high << 4) - 32).to(tl.float32)


@triton.jit
def factors_of(scales, more, factors, group, n, outputs, kind: tl.constexpr, per: tl.constexpr):
    """What a group's sums are multiplied with: of its first half, of its second, and of the sums of the
    inputs of each half, which are taken off."""
    if kind == "power":
        exponent = tl.load(scales + group * outputs + n).to(tl.int32)  # of twice the scale
        bits = tl.where(exponent > 1, (exponent - 1) << 23, 0x200000 << exponent)
        first = bits.to(tl.float32, bitcast=True)
        second, least, less = first, first, first
    elif kind == "k":
        factor, off = k_factor(factors, group, n, outputs)
        first = tl.load(scales + (group // 8) * outputs + n).to(tl.float32) * factor
        least = tl.load(more + (group // 8) * outputs + n).to(tl.float32) * off
        second, less = first, least
    elif kind == "k2":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        off = tl.load(more + (group // 8) * outputs + n).to(tl.float32)
        at = factors + group * 2 * outputs + n
        early, late = tl.load(at).to(tl.int32), tl.load(at + outputs).to(tl.int32)
        first, second = whole * (early & 15).to(tl.float32), whole * (late & 15).to(tl.float32)
        least, less = off * (early >> 4).to(tl.float32), off * (late >> 4).to(tl.float32)
    elif kind == "k3":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        first = whole * k3_factor(factors, group * 2, n, outputs)
        second = whole * k3_factor(factors, group * 2 + 1, n, outputs)
        least, less = first, second
    elif kind == "k6":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        at = factors + group * 2 * outputs + n
        first = whole * tl.load(at).to(tl.int8, bitcast=True).to(tl.float32)
        second = whole * tl.load(at + outputs).to(tl.int8, bitcast=True).to(tl.float32)
        least, less = first, second
    elif kind == "xs":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        first = whole * xs_factor(factors, group, n, outputs)
        second, least, less = first, first, first
    else:
        first = tl.load(scales + (group // per) * outputs + n).to(tl.float32)
        second, least, less = first, first, first
        if kind == "minimum":
            least = -tl.load(more + group * outputs + n).to(tl.float32)
            less = least
    return first, second, least, less


@triton.jit
def by_halves(kind: tl.constexpr):
    """Whether halves of groups have factors of their own."""
    return kind == "k2" or kind == "k3" or kind == "k6"


@triton.jit
def takes_off(kind: tl.constexpr):
    """Whether something is taken off for the sum of the inputs."""
    return kind == "k" or kind == "k2" or kind == "minimum"
