"""Types of GGUF's tensors that there is no kernel for, and the formats that they become.

IQ types of 1 to 3 bits lose 2 to 6 % of their magnitude, which is little next to what they have lost already.
Ternary types lose nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from outrider.formats.convert import convert
from outrider.formats.format import Bytes, Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight

SUBSTITUTES = {
    **dict.fromkeys(("IQ1_S", "IQ1_M"), "Q4_0"),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), "Q4_1"),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), "Q2_K"),
    "NVFP4": "Q8_0",
    "F64": "F32",
}
"""Names of the formats by names of the types."""
ONES = 0x11  # of Q2_K: a scale and a minimum that are the block's own


def substitute(type: GGMLQuantizationType, data: Bytes, inputs: int) -> Weight:
    """The weight of rows of a type that there is no kernel for."""
    block, size = GGML_QUANT_SIZES[type]
    stored = Format(type.name, int(block), int(size), partial(_decode, type))
    becomes = FORMATS[SUBSTITUTES[type.name]]
    ternary = replace(becomes, encode=_encode_ternary)
    made = convert(Weight(stored, data, inputs), ternary if becomes.name == "Q2_K" else becomes)
    return replace(made, format=becomes)


def _decode(type: GGMLQuantizationType, data: Bytes) -> Floats:
    if type is GGMLQuantizationType.F64:
        return data.view("<f8").astype(np.float32)
    return np.asarray(dequantize(np.ascontiguousarray(data), type), np.float32)


def _encode_ternary(values: Floats) -> Bytes:
    """Rows of Q2_K, exactly, for values that are -1, 0, 1 or 2 times one number for each 256.

    Of Q2_K's codes from 0 to 3, 1 is zero then. They lie in four layers of 2 bits, twice in a block.
    """
    layers = values.reshape(len(values), -1, 2, 4, 32)
    least = np.where(layers == 0, np.inf, np.abs(layers)).min(axis=(2, 3, 4))
    scales = np.where(np.isfinite(least), least, 0).astype("<f2")
    units = np.where(scales == 0, np.float32(1), scales.astype(np.float32))[..., None, None, None]
    codes = np.nan_to_num(np.rint(layers / units) + 1).astype(np.uint8)
    packed = np.bitwise_or.reduce(codes << np.array([[0], [2], [4], [6]], np.uint8), axis=3)
    factors = np.full((*scales.shape, 16), ONES, np.uint8)
    halves = scales[..., None].view(np.uint8)
    parts = [factors, packed.reshape(*scales.shape, 64), halves, halves]
    return np.concatenate(parts, axis=-1).reshape(len(values), -1)
