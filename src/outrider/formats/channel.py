"""Formats with a float32 scale for each output, and FP8 with one for 128 inputs."""

from __future__ import annotations

import numpy as np

from outrider.formats import encode
from outrider.formats.blocks import Blocks, block_format, scaled
from outrider.formats.format import Bytes, Floats, Format

SCALE = 4  # bytes of the float32 scale
FP8_BLOCK = 128  # inputs


def _e4m3_values() -> Floats:
    """The values of the 256 codes: sign, 4 bits of exponent with bias 7, 3 bits of fraction; no infinities.

    Micikevicius et al. 2022, "FP8 formats for deep learning", section 3.
    """
    codes = np.arange(128)
    exponents, fractions = codes >> 3, codes & 7
    values = np.where(
        exponents == 0, np.ldexp(fractions, -9), np.ldexp(8.0 + fractions, np.maximum(exponents, 1) - 10)
    )
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float32)


E4M3_VALUES = _e4m3_values()


def _q8_channel(data: Bytes) -> Floats:
    return scaled(_scales(data), data[:, SCALE:].view(np.int8))


def _f8_e4m3(data: Bytes) -> Floats:
    return scaled(_scales(data), E4M3_VALUES[data[:, SCALE:]])


def _scales(data: Bytes) -> Floats:
    """[rows]: what each row begins with."""
    return np.ascontiguousarray(data[:, :SCALE]).view("<f4")[:, 0]


def _f8_block(blocks: Blocks) -> Floats:
    return scaled(blocks["scale"], E4M3_VALUES[blocks["codes"]])


Q8_CHANNEL = Format("Q8_CHANNEL", 1, 1, _q8_channel, encode.q8_channel, head=SCALE)
F8_E4M3 = Format("F8_E4M3", 1, 1, _f8_e4m3, head=SCALE)
F8_BLOCK = block_format("F8_BLOCK", FP8_BLOCK, [("scale", "<f4"), ("codes", "u1", FP8_BLOCK)], _f8_block)
