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
def factors_of(scales, more, factors, group, n, outputs, kind: tl.constexpr, per: tl.constexpr):
    """What a group's sums are multiplied with: of its first half, of its second, and of its inputs' sum."""
    if kind == "power":
        exponent = tl.load(scales + group * outputs + n).to(tl.int32)  # of twice the scale
        bits = tl.where(exponent > 1, (exponent - 1) << 23, 0x200000 << exponent)
        first = bits.to(tl.float32, bitcast=True)
        second, least = first, first
    elif kind == "k":
        factor, off = k_factor(factors, group, n, outputs)
        first = tl.load(scales + (group // 8) * outputs + n).to(tl.float32) * factor
        second, least = first, tl.load(more + (group // 8) * outputs + n).to(tl.float32) * off
    elif kind == "k6":
        whole = tl.load(scales + (group // 8) * outputs + n).to(tl.float32)
        at = factors + group * 2 * outputs + n
        first = whole * tl.load(at).to(tl.int8, bitcast=True).to(tl.float32)
        second, least = whole * tl.load(at + outputs).to(tl.int8, bitcast=True).to(tl.float32), whole
    else:
        first = tl.load(scales + (group // per) * outputs + n).to(tl.float32)
        second, least = first, first
        if kind == "minimum":
            least = -tl.load(more + group * outputs + n).to(tl.float32)
    return first, second, least
