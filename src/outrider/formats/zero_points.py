"""4-bit codes with a scale and a zero point for a group of inputs, as AWQ and GPTQ have them.

A group's codes lie like those of Q4_0: of each 32 inputs, the first half in the low nibbles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats.blocks import Blocks, block_format, nibbles, pack_nibbles, scaled
from outrider.formats.format import Bytes, Floats, Format


def u4_rows(codes: NDArray[np.uint8], zeros: NDArray[np.uint8], scales: NDArray[np.float16]) -> Bytes:
    """Rows of one of these formats: codes [rows, blocks, block]; zeros, scales [rows, blocks]."""
    packed = pack_nibbles(codes.reshape(*scales.shape, -1, 32)).reshape(*scales.shape, -1)
    halves = scales.astype("<f2")[..., None].view(np.uint8)
    return np.concatenate([halves, zeros[..., None], packed], axis=-1).reshape(len(codes), -1)


def _values(blocks: Blocks) -> Floats:
    codes = nibbles(blocks["qs"].reshape(*blocks.shape, -1, 16)).reshape(*blocks.shape, -1)
    return scaled(blocks["d"], codes - blocks["zero"][..., None].astype(np.int16))


def _grouped(group: int) -> Format:
    fields = [("d", "<f2"), ("zero", "u1"), ("qs", "u1", group // 2)]
    return block_format(f"U4_{group}", group, fields, _values)


U4_32, U4_64, U4_128 = (_grouped(group) for group in (32, 64, 128))
