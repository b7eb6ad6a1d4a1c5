"""Reading weights in kernels: codes and factors from planes, in every format."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def floats(codes, at, real, kind: tl.constexpr):
    """Numbers of a dense matrix, without the scale of 'int8' and 'fp8'."""
    if kind == "":
        return tl.load(codes + at, mask=real, other=0.0)
    byte = tl.load(codes + at, mask=real, other=0)
    if kind == "int8":
        return byte.to(tl.int8, bitcast=True).to(tl.float32)
    # float8_e4m3fn has four bits of exponent, float16 five: the same bits mean 256 times less there.
    bits = ((byte & 128).to(tl.uint16) << 8) | ((byte & 127).to(tl.uint16) << 7)
    value = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((byte & 127) == 127, float("nan"), value)


@triton.jit
def upper(high, group, k, shift, n, outputs, bits: tl.constexpr):
    """The bits above four of codes: of input k of a half, which begins at bit `shift`."""
    count: tl.constexpr = 4 * bits
    byte = tl.load(high + (group * count + k % count) * outputs + n).to(tl.int32)
    return (byte >> (bits * (k // count) + shift) & ((1 << bits) - 1)) << 4


@triton.jit
def pair(codes, high, table, more, group, k, n, outputs, low_bits: tl.constexpr, high_bits: tl.constexpr,
         zero: tl.constexpr, scales: tl.constexpr, per: tl.constexpr, has_table: tl.constexpr):  # fmt: skip
    """The codes of inputs k and 16 + k of a group, float32. k, n: of shapes that go together."""
    if low_bits == 8:
        at = codes + (group * 32 + k) * outputs + n
        first = tl.load(at).to(tl.int8, bitcast=True).to(tl.int32)
        second = tl.load(at + 16 * outputs).to(tl.int8, bitcast=True).to(tl.int32)
    else:
        byte = tl.load(codes + (group * 16 + k) * outputs + n).to(tl.int32)
        first, second = byte & 15, byte >> 4
        if high_bits > 0:
            first = first | upper(high, group, k, 0, n, outputs, high_bits)
            second = second | upper(high, group, k, 4, n, outputs, high_bits)
    if has_table:
        return tl.load(table + first), tl.load(table + second)
    if scales == "zero":
        off = tl.load(more + (group // per) * outputs + n).to(tl.int32)
        first, second = first - off, second - off
    return (first - zero).to(tl.float32), (second - zero).to(tl.float32)


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
def factors_of(scales, more, factors, group, n, outputs, kind: tl.constexpr, per: tl.constexpr):
    """What a group's sums are multiplied with: of its first half, of its second, and of its inputs' sum."""
    if kind == "power":
        exponent = tl.load(scales + group * outputs + n).to(tl.int32)  # of twice the scale
        bits = tl.where(exponent > 1, (exponent - 1) << 23, 0x200000 << exponent)
        scale = bits.to(tl.float32, bitcast=True)
        return scale, scale, scale
    if kind == "k":
        factor, least = k_factor(factors, group, n, outputs)
        scale = tl.load(scales + (group // 8) * outputs + n).to(tl.float32) * factor
        return scale, scale, tl.load(more + (group // 8) * outputs + n).to(tl.float32) * least
    if kind == "k6":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        at = factors + group * 2 * outputs + n
        first = tl.load(at).to(tl.int8, bitcast=True).to(tl.float32)
        second = tl.load(at + outputs).to(tl.int8, bitcast=True).to(tl.float32)
        return whole * first, whole * second, whole
    scale = tl.load(scales + (group // per) * outputs + n).to(tl.float32)
    if kind == "minimum":
        return scale, scale, -tl.load(more + group * outputs + n).to(tl.float32)
    return scale, scale, scale
