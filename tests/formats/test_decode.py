"""Every format's bytes as numbers, against the gguf library, PyTorch's FP8, or the format's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight

OF_GGUF = [name for name in FORMATS if name in GGMLQuantizationType.__members__]
RANDOM = np.random.default_rng(0)


def random_rows(name: str, blocks: int, rows: int = 40) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (rows, FORMATS[name].head + blocks * FORMATS[name].size), dtype=np.uint8)


def of_scale(scale: float, codes: NDArray[np.uint8], type: str) -> NDArray[np.uint8]:
    return np.concatenate([np.array([scale], type).view(np.uint8), codes])


def test_every_type_of_gguf_that_is_computed_with_is_there() -> None:
    assert len(OF_GGUF) == 16


@pytest.mark.parametrize("name", OF_GGUF)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # any bytes are scales: some are infinite
def test_types_of_gguf(name: str) -> None:
    """Bit for bit, for all bytes that there are."""
    type, format = GGMLQuantizationType[name], FORMATS[name]
    assert GGML_QUANT_SIZES[type] == (format.block, format.size)
    assert format.name == name
    data = random_rows(name, 4)
    expected = dequantize(data, type)
    values = format.decode(data)
    assert values.dtype == np.float32
    assert np.isfinite(expected).mean() > 0.5
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_may_be_strided(name: str) -> None:
    """As the q, k and v of a fused tensor, or some inputs of a weight, are."""
    wide = random_rows(name, 2)
    padded = np.concatenate([wide, np.zeros((len(wide), 3), np.uint8)], axis=1)
    decode = FORMATS[name].decode
    np.testing.assert_array_equal(decode(padded[::2, : wide.shape[1]]), decode(wide[::2].copy()))


def test_fp8_is_pytorchs() -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    row = of_scale(0.75, codes, "<f4")
    np.testing.assert_array_equal(FORMATS["F8_E4M3"].decode(row[None])[0], np.float32(0.75) * expected)
    blocks = np.concatenate([of_scale(0.75, codes[:128], "<f4"), of_scale(3, codes[128:], "<f4")])
    expected = np.concatenate([np.float32(0.75) * expected[:128], 3 * expected[128:]])
    np.testing.assert_array_equal(FORMATS["F8_BLOCK"].decode(blocks[None])[0], expected)


def test_a_scale_for_each_output() -> None:
    codes = np.arange(-128, 128).astype(np.int8)
    row = of_scale(0.3, codes.view(np.uint8), "<f4")
    np.testing.assert_array_equal(FORMATS["Q8_CHANNEL"].decode(row[None])[0], np.float32(0.3) * codes)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_zero_points(group: int) -> None:
    """Zero points reach from 0 to 16: GPTQ stores one less than they are."""
    codes = RANDOM.integers(0, 16, (2, group)).astype(np.uint8)
    rows = []
    for scale, zero, block in ((0.02, 16, codes[0]), (-1.5, 3, codes[1])):
        halves = block.reshape(-1, 2, 16)
        packed = (halves[:, 0] | halves[:, 1] << 4).reshape(-1)
        rows.append(of_scale(scale, np.concatenate([[np.uint8(zero)], packed]), "<f2"))
    values = FORMATS[f"U4_{group}"].decode(np.concatenate(rows)[None])[0]
    np.testing.assert_array_equal(values[:group], np.float32(np.float16(0.02)) * (codes[0] - 16.0))
    np.testing.assert_array_equal(values[group:], -1.5 * (codes[1] - 3.0))


def test_inputs_in_another_order() -> None:
    """As act-order's groups have them: stored column j belongs to input columns[j]."""
    data = np.arange(6, dtype="<f4").reshape(2, 3).view(np.uint8)
    columns = np.array([2, 0, 1], np.int32)
    weight = Weight(FORMATS["F32"], data, 3, columns=columns)
    assert weight.dequantize().tolist() == [[1, 2, 0], [4, 5, 3]]
