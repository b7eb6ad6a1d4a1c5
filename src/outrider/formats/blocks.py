"""What the formats share whose rows are blocks of one layout: their bytes, seen as named fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Bytes, Floats, Format

Blocks = NDArray[Any]
"""Blocks by their fields: [rows, blocks], of a structured type."""


def block_format(
    name: str,
    block: int,
    fields: list[tuple[Any, ...]],
    values: Callable[[Blocks], Floats],
    encode: Callable[[Floats], Bytes] | None = None,
) -> Format:
    """The format whose blocks have these fields.

    fields: as NumPy's structured types are written, in the order of the bytes. values: blocks -> float32
    [rows, blocks, ...], of which each block has `block`.
    """
    layout = np.dtype(fields)

    def decode(data: Bytes) -> Floats:
        return values(data.view(layout)).reshape(len(data), -1)

    return Format(name, block, layout.itemsize, decode, encode)


def nibbles(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """4-bit codes [..., 2n] of bytes [..., n]: the first half is in the low nibbles."""
    return np.concatenate([data & np.uint8(15), data >> np.uint8(4)], axis=-1)


def pack_nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `nibbles` reads: bytes [..., n] of codes [..., 2n]."""
    half = codes.shape[-1] // 2
    return codes[..., :half] | codes[..., half:] << np.uint8(4)


def bit_fields(data: NDArray[Any], width: int, count: int) -> NDArray[np.uint8]:
    """The `count` numbers of `width` bits in each value of [..., n], lowest first: [..., count, n]."""
    shifts = np.arange(0, width * count, width, dtype=data.dtype)[:, None]
    numbers: NDArray[Any] = data[..., None, :] >> shifts & data.dtype.type((1 << width) - 1)
    return numbers.astype(np.uint8, copy=False)


def signed(codes: NDArray[np.uint8], zero: int) -> NDArray[np.int8]:
    """Codes as numbers around zero."""
    return codes.view(np.int8) - np.int8(zero)


def scaled(scales: NDArray[Any], codes: NDArray[Any]) -> Floats:
    """The products, in float32, of scales [...] and the codes [..., n] that share them."""
    product: Floats = scales.astype(np.float32)[..., None] * codes
    return product
