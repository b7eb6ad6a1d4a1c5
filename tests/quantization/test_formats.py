"""Weights in their formats: what conversion loses, and joining and reordering them."""

from __future__ import annotations

import pytest
import torch

from outrider.quantization.quantize import convert
from outrider.quantization.weight import Format, Weight, join, plain

FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "int8", "int8_channel", "int4", "int4_min")
LOSS = {
    "float32": 0.0,
    "bfloat16": 2.5e-3,
    "int8": 8e-3,
    "int8_channel": 1.2e-2,
    "int4": 0.12,
    "int4_min": 0.1,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("inputs", [32, 80, 5])
def test_what_conversion_loses(format: Format, inputs: int) -> None:
    """Root mean square error of normal weights, of their own."""
    values = torch.randn(64, inputs, generator=torch.Generator().manual_seed(0))
    weight = convert(Weight("float32", values), format)
    assert weight.shape == (64, inputs)
    error = (weight.dequantize() - values).square().mean().sqrt() / values.square().mean().sqrt()
    assert float(error) <= LOSS[format]
    assert convert(weight, format) is weight


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_and_constants(format: Format) -> None:
    values = torch.zeros(3, 64)
    values[1] = 2.0
    back = convert(Weight("float32", values), format).dequantize()
    assert torch.allclose(back, values, rtol=5e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_in_another_order(format: Format) -> None:
    weight = convert(Weight("float32", torch.randn(6, 40)), format)
    order = torch.tensor([5, 0, 3])
    assert torch.equal(weight.rows(order).dequantize(), weight.dequantize()[order])


def test_neighbours_of_one_format_are_joined() -> None:
    sizes: tuple[tuple[int, Format], ...] = ((2, "int8"), (3, "int8"), (4, "int4"))
    weights = [convert(Weight("float32", torch.randn(n, 32)), f) for n, f in sizes]
    joined = join(weights)
    assert [w.format for w in joined] == ["int8", "int4"]
    rows = torch.cat([w.dequantize() for w in weights])
    assert torch.equal(torch.cat([w.dequantize() for w in joined]), rows)


@pytest.mark.parametrize(
    ("dtype", "format"),
    [
        (torch.bfloat16, "bfloat16"),
        (torch.float16, "float32"),
        (torch.float32, "float32"),
        (torch.float64, "float32"),
    ],
)
def test_float_weights_as_they_are(dtype: torch.dtype, format: str) -> None:
    values = torch.randn(3, 5).to(dtype)
    weight = plain(values)
    assert weight.format == format
    assert torch.equal(weight.dequantize(), values.float())


@pytest.mark.parametrize("format", FORMATS)
def test_converted_a_few_rows_at_a_time(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    values = Weight("float32", torch.randn(7, 40))
    whole = convert(values, format)
    monkeypatch.setattr("outrider.quantization.slabs.SLAB", 90)  # two rows
    parts = convert(values, format)
    assert parts.format == whole.format
    for one, other in ((parts.values, whole.values), (parts.scales, whole.scales), (parts.mins, whole.mins)):
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other))
