"""The blocks that GGUF stores quantised weights in, as weights of our formats.

Q8_0, Q4_0 and Q4_1 are taken as they are. Q4_K is exactly a scale and a minimum for 32 weights, but for the
rounding of their products to float16. All others become int8 with a scale for 32 weights, the nearest that
loses least: those of 5 and 6 bits do not fit 4, and those of 2 and 3 have a scale for 16 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray
from torch import Tensor

from outrider.models.gguf_header import StoredTensor
from outrider.quantization.quantize import convert
from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import Format, Weight

Rows = NDArray[Any]
"""Some rows of a tensor, as `StoredTensor.read` gives them."""
Bytes = NDArray[np.uint8]


def dequantized(stored: StoredTensor) -> Tensor:
    """float32, in the file's order."""
    return _floats(stored.read(), stored.type)


def weight_of(stored: StoredTensor) -> Weight:
    """A matrix as it is stored, or in the format that loses least. The file's pages are given back."""
    reader = _READERS[stored.type.name]
    rows, columns = stored.shape
    weight = by_rows(rows, columns, lambda first, last: reader(stored.read(first, last)))
    stored.release()
    return weight


def _floats(data: Rows, kind: GGMLQuantizationType) -> Tensor:
    return torch.from_numpy(np.array(dequantize(data, kind), dtype=np.float32))


def _float32(data: Rows) -> Weight:
    return Weight("float32", torch.from_numpy(data.astype(np.float32)))


def _bfloat16(data: Rows) -> Weight:
    return Weight("bfloat16", torch.from_numpy(data.copy()).view(torch.bfloat16))


def _q8_0(data: Rows) -> Weight:
    blocks = _blocks(data, 34)
    codes = blocks[..., 2:].view(np.int8).astype(np.int16) + 128
    return Weight("int8", _codes(codes), _halves(blocks, 0))


def _q4_0(data: Rows) -> Weight:
    blocks = _blocks(data, 18)
    return Weight("int4", _codes(nibbles(blocks[..., 2:])), _halves(blocks, 0))


def _q4_1(data: Rows) -> Weight:
    blocks = _blocks(data, 20)
    return Weight("int4_min", _codes(nibbles(blocks[..., 4:])), _halves(blocks, 0), _halves(blocks, 2))


def _q4_k(data: Rows) -> Weight:
    """Blocks of 256: a scale and a minimum in float16, 8 pairs of 6-bit factors, and 4-bit codes by 64."""
    blocks = _blocks(data, 144)
    packed = blocks[..., 4:16].astype(np.int32)
    low, mid, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=-1)
    mins = np.concatenate([mid & 63, high >> 4 | mid >> 6 << 4], axis=-1)
    scale, least = (_halves(blocks, at).float()[..., None] for at in (0, 2))  # [rows, blocks, 1]
    nibbles = blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32)
    codes = np.stack([nibbles & 15, nibbles >> 4], axis=-2)  # [rows, blocks, 4, 2, 32]
    return Weight(
        "int4_min",
        _codes(codes),
        (scale * torch.from_numpy(scales)).flatten(1).half(),
        (-least * torch.from_numpy(mins)).flatten(1).half(),
    )


def _as_int8(kind: str) -> Callable[[Rows], Weight]:
    type = GGMLQuantizationType[kind]
    return lambda data: convert(Weight("float32", _floats(data, type)), "int8")


def _blocks(data: Rows, size: int) -> Bytes:
    """uint8 [rows, blocks, size]."""
    return data.reshape(data.shape[0], -1, size)


def _halves(blocks: Bytes, at: int) -> Tensor:
    """The float16 number at a byte of each block: [rows, blocks]."""
    return torch.from_numpy(np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0])


def nibbles(data: Bytes) -> Bytes:
    """Codes of 4 bits [..., n] from bytes [..., n / 2]: the first half is in the low nibbles."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _codes(codes: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(codes.reshape(codes.shape[0], -1).astype(np.uint8))


_AS_INT8 = ("Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q5_K", "Q6_K")
_READERS: dict[str, Callable[[Rows], Weight]] = {
    "F32": _float32,
    "F16": _float32,
    "BF16": _bfloat16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    **{kind: _as_int8(kind) for kind in _AS_INT8},
}
TYPES = tuple(_READERS)
FORMATS: dict[str, Format] = {
    "F32": "float32",
    "F16": "float32",
    "BF16": "bfloat16",
    "Q8_0": "int8",
    "Q4_0": "int4",
    "Q4_1": "int4_min",
    "Q4_K": "int4_min",
    **dict.fromkeys(_AS_INT8, "int8"),
}
"""What a type is read as."""
CHANGED = {
    "Q4_K": "4 bits with scales and minimums rounded to float16",
    **dict.fromkeys(_AS_INT8, "8 bits with a scale for 32 weights"),
}
"""What becomes of the types that are not taken as they are."""
