"""GGUF's formats with one scale for 32 weights, as `ggml-common.h` of llama.cpp lays them out.

d: scale. m: minimum. qs: codes. qh: the fifth bit of each code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats import encode
from outrider.formats.blocks import Blocks, block_format, nibbles, scaled, signed
from outrider.formats.format import Floats

GROUP = 32  # weights that share a scale
IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
E2M1_DOUBLES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)
E8M0_HALVES = np.ldexp(np.float32(0.5), np.arange(256) - 127)
"""Halves of powers of two, by their exponents. The codes' values are doubled, so that all are finite."""


def _q8_0(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], blocks["qs"])


def _q4_0(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], signed(nibbles(blocks["qs"]), 8))


def _q4_1(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], nibbles(blocks["qs"])) + _mins(blocks)


def _q5_0(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], signed(_five_bits(blocks), 16))


def _q5_1(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], _five_bits(blocks)) + _mins(blocks)


def _mins(blocks: Blocks) -> Floats:
    return np.asarray(blocks["m"], np.float32)[..., None]


def _five_bits(blocks: Blocks) -> NDArray[np.uint8]:
    high = np.unpackbits(blocks["qh"], axis=-1, bitorder="little")
    return nibbles(blocks["qs"]) | high << np.uint8(4)


def _iq4_nl(blocks: Blocks) -> Floats:
    return scaled(blocks["d"], IQ4_VALUES[nibbles(blocks["qs"])])


def _mxfp4(blocks: Blocks) -> Floats:
    """Microscaling FP4 of the OCP specification, 1.0: e2m1 codes and a power of two for 32."""
    return scaled(E8M0_HALVES[blocks["e"]], E2M1_DOUBLES[nibbles(blocks["qs"])])


Q8_0 = block_format("Q8_0", GROUP, [("d", "<f2"), ("qs", "i1", 32)], _q8_0, encode.q8_0)
Q4_0 = block_format("Q4_0", GROUP, [("d", "<f2"), ("qs", "u1", 16)], _q4_0, encode.q4_0)
Q4_1 = block_format("Q4_1", GROUP, [("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)], _q4_1, encode.q4_1)
Q5_0 = block_format("Q5_0", GROUP, [("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)], _q5_0)
Q5_1 = block_format("Q5_1", GROUP, [("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)], _q5_1)
IQ4_NL = block_format("IQ4_NL", GROUP, [("d", "<f2"), ("qs", "u1", 16)], _iq4_nl)
MXFP4 = block_format("MXFP4", GROUP, [("e", "u1"), ("qs", "u1", 16)], _mxfp4)
