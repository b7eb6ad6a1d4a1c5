"""Linear layers on the GPU's kernels: against float64 in every format, and rows bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.ops.cuda import linear as linear_module
from outrider.ops.cuda.formats import GPU_FORMATS
from outrider.ops.cuda.linear import Cut, linear
from outrider.ops.cuda.matrix import GpuMatrix, pack_matrix
from tests.ops.cuda import DEVICE, ON_GPU
from tests.ops.matrices import random_stored

OUTPUTS, INPUTS = (4096, 4096) if ON_GPU else (20, 512)
COUNTS = range(1, 65) if ON_GPU else (1, 17, 33)


def stored(outputs: int, inputs: int, format: str, seed: int = 0) -> Weight:
    made = random_stored(outputs, inputs, format, seed)
    return Weight(FORMATS[format], made.data, inputs)


def packed(weight: Weight, bias: Tensor | None = None) -> GpuMatrix:
    return pack_matrix([weight], torch.device(DEVICE), bias)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def expected(x: Tensor, weight: Weight) -> tuple[Tensor, Tensor]:
    """The product in float64, and that of the magnitudes, which bounds its error."""
    w = torch.from_numpy(weight.dequantize()).double().to(DEVICE)
    return x.double() @ w.T, x.double().abs() @ w.abs().T


@pytest.mark.parametrize(
    ("format", "dtype"),
    [(format, torch.bfloat16) for format in GPU_FORMATS]
    + [(format, dtype) for format in ("F32", "F16", "Q4_K") for dtype in (torch.float32, torch.float16)],
)
def test_against_float64(format: str, dtype: torch.dtype) -> None:
    outputs, inputs = (OUTPUTS, INPUTS) if ON_GPU else (20, 256)
    weight = stored(outputs, inputs, format)
    x = numbers(5, inputs, seed=1).to(dtype)
    y = linear(x, [packed(weight)])
    exact, most = expected(x, weight)
    assert y.dtype == torch.float32
    assert float(((y.double() - exact).abs() / most).max()) < 2e-6


def test_sizes_that_no_tile_divides() -> None:
    for format in ("F32", "BF16", "Q8_CHANNEL", "Q8_0"):
        weight = stored(7, 33 if format != "Q8_0" else 32, format)
        x = numbers(3, weight.inputs)
        exact, most = expected(x, weight)
        assert float(((linear(x, [packed(weight)]).double() - exact).abs() / most).max()) < 1e-6, format


def test_parts_bias_scale_residual_and_order_of_inputs() -> None:
    """Parts of several formats, one of which is stored in an order of inputs of its own."""
    inputs, order = 256, np.random.default_rng(0).permutation(256).astype(np.int32)
    q4 = stored(40, inputs, "U4_128")
    parts = [stored(20, inputs, "F16"), Weight(q4.format, q4.data, inputs, columns=order)]
    bias, x, residual = numbers(60, seed=3), numbers(4, inputs), numbers(4, 60, seed=5)
    made = [packed(parts[0], bias[:20].clone()), packed(parts[1], bias[20:].clone())]
    whole = torch.cat([torch.from_numpy(part.dequantize()) for part in parts]).double().to(DEVICE)
    exact = residual + 0.5 * (x.double() @ whole.T + bias)
    assert torch.allclose(linear(x, made, residual, 0.5).double(), exact, rtol=1e-4, atol=1e-5)


def test_every_format_has_kernels() -> None:
    assert GPU_FORMATS.keys() == FORMATS.keys()


def test_no_format_takes_more_bytes_than_in_the_file() -> None:
    for format in GPU_FORMATS:
        weight = stored(16, 256, format)
        assert packed(weight).nbytes == weight.data.nbytes, format


def row_depends_on_others(f: Callable[[Tensor], Tensor], x: Tensor) -> list[int]:
    """The numbers of rows with which some row of `f` changes in any bit, where it stands or elsewhere."""
    whole, draw, found = f(x), np.random.default_rng(0), []
    for rows in COUNTS:
        start = int(draw.integers(0, len(x) - rows + 1))
        order = torch.from_numpy(draw.permutation(len(x))[:rows]).to(x.device)
        same = torch.equal(f(x[start : start + rows]), whole[start : start + rows])
        if not (same and torch.equal(f(x[order]), whole[order])):
            found.append(rows)
    return found


@pytest.mark.parametrize("format", ["F32", "F16", "BF16", "F8_BLOCK", "Q8_0", "Q2_K", "Q4_K", "U4_128"])
def test_a_row_is_bit_identical(format: str) -> None:
    matrix = packed(stored(OUTPUTS, INPUTS, format))
    assert Cut.of(OUTPUTS, INPUTS).splits > 1
    dtype = {"F32": torch.float32, "F16": torch.float16}.get(format, torch.bfloat16)
    assert not row_depends_on_others(lambda x: linear(x, [matrix]), numbers(64, INPUTS).to(dtype))


def test_planted_fault_splits_by_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, rows = packed(stored(OUTPUTS, INPUTS, "BF16")), [0]
    real = Cut.of

    def faulty(outputs: int, inputs: int) -> Cut:
        return Cut(inputs, 1) if rows[0] > 16 else real(outputs, inputs)

    def f(x: Tensor) -> Tensor:
        rows[0] = len(x)
        return linear(x, [matrix])

    monkeypatch.setattr(linear_module.Cut, "of", faulty)
    assert row_depends_on_others(f, numbers(64, INPUTS).to(torch.bfloat16))
