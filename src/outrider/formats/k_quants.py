"""GGUF's formats whose scales are quantised too, as `ggml-common.h` of llama.cpp lays them out.

256 weights share the float16 scale `d` (and `dmin`, of the minimums), and 16 or 32 of them a factor of 4, 6
or 8 bits in `scales`. qs, ql: codes, or their lower bits. qh, hmask: their upper bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats.blocks import Blocks, bit_fields, block_format, nibbles, scaled, signed
from outrider.formats.format import Floats
from outrider.formats.grouped import IQ4_VALUES

SUPER = 256  # weights of a block


def _q2_k(blocks: Blocks) -> Floats:
    scales = scaled(blocks["d"], blocks["scales"] & 15)  # [rows, blocks, 16]
    mins = scaled(blocks["dmin"], blocks["scales"] >> 4)
    return scaled(scales, _by_halves(blocks["qs"], 2, 4).reshape(*blocks.shape, 16, 16)) - mins[..., None]


def _q3_k(blocks: Blocks) -> Floats:
    """The third bit of a code is stored inverted: 4 is taken off where it is missing."""
    packed = blocks["scales"]
    low = nibbles(packed[..., :8])
    high = bit_fields(packed[..., 8:], 2, 4).reshape(*blocks.shape, 16)
    scales = scaled(blocks["d"], signed(low | high << np.uint8(4), 32))
    third = bit_fields(blocks["hmask"], 1, 8).reshape(*blocks.shape, 256)
    codes = _by_halves(blocks["qs"], 2, 4).reshape(*blocks.shape, 256)
    return scaled(scales, signed(codes | third << np.uint8(2), 4).reshape(*blocks.shape, 16, 16))


def _q4_k(blocks: Blocks) -> Floats:
    scales, mins = _scales_and_mins(blocks)
    codes = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32)).reshape(*blocks.shape, 8, 32)
    return scaled(scales, codes) - mins[..., None]


def _q5_k(blocks: Blocks) -> Floats:
    scales, mins = _scales_and_mins(blocks)
    low = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32)).reshape(*blocks.shape, 8, 32)
    return scaled(scales, low | bit_fields(blocks["qh"], 1, 8) << np.uint8(4)) - mins[..., None]


def _q6_k(blocks: Blocks) -> Floats:
    scales = scaled(blocks["d"], blocks["scales"])  # [rows, blocks, 16]
    low = nibbles(blocks["ql"].reshape(*blocks.shape, 2, 64)).reshape(*blocks.shape, 256)
    high = _by_halves(blocks["qh"], 2, 4).reshape(*blocks.shape, 256)
    codes = signed(low | high << np.uint8(4), 32)
    return scaled(scales, codes.reshape(*blocks.shape, 16, 16))


def _iq4_xs(blocks: Blocks) -> Floats:
    low = bit_fields(blocks["scales_l"][..., None], 4, 2).reshape(*blocks.shape, 8)
    high = bit_fields(blocks["scales_h"][..., None], 2, 8).reshape(*blocks.shape, 8)
    scales = scaled(blocks["d"], signed(low | high << np.uint8(4), 32))
    return scaled(scales, IQ4_VALUES[nibbles(blocks["qs"].reshape(*blocks.shape, 8, 16))])


def _by_halves(data: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    """Numbers of `width` bits, `count` in a byte: those of the first 32 bytes, then those of the others."""
    return bit_fields(data.reshape(*data.shape[:-1], 2, 32), width, count)


def _scales_and_mins(blocks: Blocks) -> tuple[Floats, Floats]:
    """The scales and minima of Q4_K and Q5_K: float32 [rows, blocks, 8] each.

    The first four pairs of 6-bit factors lie in the low bits of 8 bytes; the others have 4 bits in the 4
    bytes that follow and 2 in what those 8 have left.
    """
    low, mid, high = np.split(blocks["scales"], 3, axis=-1)
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=-1)
    mins = np.concatenate([mid & 63, high >> 4 | mid >> 6 << 4], axis=-1)
    return scaled(blocks["d"], scales), scaled(blocks["dmin"], mins)


_D = ("d", "<f2")
_DMIN = ("dmin", "<f2")
Q2_K = block_format("Q2_K", SUPER, [("scales", "u1", 16), ("qs", "u1", 64), _D, _DMIN], _q2_k)
Q3_K = block_format("Q3_K", SUPER, [("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), _D], _q3_k)
Q4_K = block_format("Q4_K", SUPER, [_D, _DMIN, ("scales", "u1", 12), ("qs", "u1", 128)], _q4_k)
Q5_K = block_format(
    "Q5_K", SUPER, [_D, _DMIN, ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)], _q5_k
)
Q6_K = block_format("Q6_K", SUPER, [("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), _D], _q6_k)
IQ4_XS = block_format(
    "IQ4_XS", SUPER, [_D, ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)], _iq4_xs
)
