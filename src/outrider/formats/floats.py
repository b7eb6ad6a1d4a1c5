"""Formats of floating-point numbers without scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Bytes, Floats, Format


def _decode_f32(data: Bytes) -> Floats:
    return data.view("<f4").astype(np.float32)


def _encode_f32(values: Floats) -> Bytes:
    return values.astype("<f4").view(np.uint8)


def _decode_f16(data: Bytes) -> Floats:
    return data.view("<f2").astype(np.float32)


def _encode_f16(values: Floats) -> Bytes:
    """Numbers beyond float16's range become infinite."""
    with np.errstate(over="ignore"):
        return values.astype("<f2").view(np.uint8)


def _decode_bf16(data: Bytes) -> Floats:
    return bfloat16_to_float32(data.view("<u2"))


def _encode_bf16(values: Floats) -> Bytes:
    return float32_to_bfloat16(values).view(np.uint8)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> Floats:
    """float32 of the upper 16 bits of each number."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float32_to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """The bits of the nearest number, of two the even one."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype("<u2")


F32 = Format("F32", 1, 4, _decode_f32, _encode_f32)
F16 = Format("F16", 1, 2, _decode_f16, _encode_f16)
BF16 = Format("BF16", 1, 2, _decode_bf16, _encode_bf16)
