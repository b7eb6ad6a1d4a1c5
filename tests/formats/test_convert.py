"""What conversion loses, and that nothing else is changed by it."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.formats.convert import convert
from outrider.formats.format import Floats
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight

LOSS = {
    "F32": 0.0,
    "F16": 3e-4,
    "BF16": 2.5e-3,
    "Q8_0": 8e-3,
    "Q8_CHANNEL": 1.2e-2,
    "Q4_0": 0.12,
    "Q4_1": 0.1,
}


def normal(rows: int, inputs: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, inputs)).astype(np.float32)


def floats(values: Floats) -> Weight:
    return Weight(FORMATS["F32"], values.view(np.uint8), values.shape[1])


def test_all_that_can_be_made_is_tested() -> None:
    assert LOSS.keys() == {name for name, format in FORMATS.items() if format.encode}


@pytest.mark.parametrize("name", LOSS)
@pytest.mark.parametrize("inputs", [32, 80, 5])
def test_what_conversion_loses(name: str, inputs: int) -> None:
    """Root mean square error of normal weights, of their own."""
    values, format = normal(64, inputs), FORMATS[name]
    weight = convert(floats(values), format)
    assert weight.shape == (64, inputs)
    assert weight.data.shape == (64, format.row_bytes(inputs))
    error = np.sqrt(np.square(weight.dequantize() - values).mean() / np.square(values).mean())
    assert error <= LOSS[name]
    assert convert(weight, format) is weight


@pytest.mark.parametrize("name", LOSS)
def test_zeros_and_constants(name: str) -> None:
    values = np.zeros((3, 64), np.float32)
    values[1] = 2.0
    back = convert(floats(values), FORMATS[name]).dequantize()
    np.testing.assert_allclose(back, values, rtol=5e-3)


@pytest.mark.parametrize("name", LOSS)
def test_rows_in_another_order(name: str) -> None:
    weight = convert(floats(normal(6, 40)), FORMATS[name])
    order = np.array([5, 0, 3], np.int32)
    np.testing.assert_array_equal(weight.reordered(order).dequantize(), weight.dequantize()[order])


@pytest.mark.parametrize("name", LOSS)
def test_converted_a_few_rows_at_a_time(name: str) -> None:
    """A weight whose rows and inputs are stored in another order."""
    order = np.array([6, 0, 5, 1, 4, 2, 3], np.int32)
    columns = np.random.default_rng(1).permutation(40).astype(np.int32)
    weight = Weight(FORMATS["F32"], normal(7, 40).view(np.uint8), 40, order, columns)
    whole = convert(weight, FORMATS[name])
    parts = convert(weight, FORMATS[name], slab=90)  # two rows
    assert parts.format is whole.format
    if name != "F32":
        assert parts.order is None
        assert parts.columns is None
    np.testing.assert_array_equal(parts.data, whole.data)


def test_four_bits_choose_the_scale_of_least_error() -> None:
    """Codes for shares of the range are tried; those for the whole range alone lose more."""
    values = normal(64, 256)
    groups = values.reshape(-1, 32)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[:, None], -1)
    scale = (largest / -8).astype(np.float16).astype(np.float32)
    plain = np.rint(groups / scale).clip(-8, 7) * scale
    chosen = convert(floats(values), FORMATS["Q4_0"]).dequantize().reshape(groups.shape)
    errors = [np.square(kept - groups).sum(-1) for kept in (chosen, plain)]
    assert (errors[0] <= errors[1] * 1.0001).all()
    assert errors[0].sum() < 0.95 * errors[1].sum()


def test_bfloat16_is_rounded_to_even_and_keeps_what_is_no_number() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x7F800000, 0x7FFFFFFF, 0xFF7FFFFF], np.uint32)
    data = convert(floats(bits.view(np.float32)[None]), FORMATS["BF16"]).data.view(np.uint16)[0]
    assert data.tolist() == [0x3F80, 0x3F82, 0x7F80, 0x7FFF, 0xFF80]


def test_nothing_is_turned_into_formats_that_only_files_have() -> None:
    with pytest.raises(ValueError, match="nothing is turned into Q4_K"):
        convert(floats(normal(1, 256)), FORMATS["Q4_K"])
