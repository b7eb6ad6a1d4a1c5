"""GGUF's blocks as our formats, against the gguf library's own dequantisation."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from outrider.models.gguf_blocks import FORMATS, dequantized, weight_of
from outrider.models.gguf_header import StoredTensor

# Bytes of a block, and where its float16 scales are.
BLOCKS = {
    "Q2_K": (84, slice(80, 84)),
    "Q3_K": (110, slice(108, 110)),
    "Q4_K": (144, slice(0, 4)),
    "Q5_K": (176, slice(0, 4)),
    "Q6_K": (210, slice(208, 210)),
}


def stored_tensor(data: NDArray[Any], kind: GGMLQuantizationType, columns: int) -> StoredTensor:
    """As if it were in a file."""
    content = data.tobytes()
    mapping = mmap.mmap(-1, len(content))
    mapping.write(content)
    return StoredTensor("", kind, (len(data), columns), 0, len(content), mapping)


def random_blocks(kind: str, rows: int = 6, blocks: int = 3) -> NDArray[np.uint8]:
    """Any bytes are codes; the float16 scales among them are made small numbers."""
    size, place = BLOCKS[kind]
    data = np.random.default_rng(0).integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    scales = (
        np.random.default_rng(1).uniform(0.001, 0.01, (rows, blocks, 2)).astype(np.float16).view(np.uint8)
    )
    data[..., place] = scales[..., : place.stop - place.start]
    return data.reshape(rows, -1)


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        ("Q8_0", "int8"),
        ("Q4_0", "int4"),
        ("Q4_1", "int4_min"),
        ("BF16", "bfloat16"),
        ("F16", "float32"),
        ("F32", "float32"),
    ],
)
def test_taken_as_they_are(kind: str, format: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 96)).astype(np.float32)
    type = GGMLQuantizationType[kind]
    stored = stored_tensor(quantize(values, type), type, 96)
    weight = weight_of(stored)
    assert weight.format == format == FORMATS[kind]
    assert torch.equal(weight.dequantize(), dequantized(stored))


@pytest.mark.parametrize(
    ("kind", "format", "loss"),
    [
        ("Q2_K", "int8", 1e-2),
        ("Q3_K", "int8", 1e-2),
        ("Q4_K", "int4_min", 1e-3),
        ("Q5_K", "int8", 1e-2),
        ("Q6_K", "int8", 1e-2),
    ],
)
def test_k_quants(kind: str, format: str, loss: float) -> None:
    type = GGMLQuantizationType[kind]
    data = random_blocks(kind)
    expected = torch.from_numpy(np.array(dequantize(data, type)))
    weight = weight_of(stored_tensor(data, type, 768))
    assert weight.format == format == FORMATS[kind]
    assert weight.shape == (6, 768)
    error = (weight.dequantize() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert float(error) < loss


def test_a_large_tensor_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    type = GGMLQuantizationType.Q4_1
    values = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    stored = stored_tensor(quantize(values, type), type, 64)
    whole = weight_of(stored)
    monkeypatch.setattr("outrider.quantization.slabs.SLAB", 130)  # two rows
    parts = weight_of(stored)
    assert parts.mins is not None
    assert torch.equal(parts.values, whole.values)
    assert torch.equal(parts.dequantize(), whole.dequantize())
