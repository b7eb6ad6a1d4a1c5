"""Weights that become another format while they are packed: worth what NumPy's conversion makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from outrider.formats.convert import convert
from outrider.formats.registry import FORMATS as KNOWN
from outrider.formats.weight import Weight
from tests.ops.matrices import Floats, Stored, random_stored
from tests.ops.native import FORMATS, float_weight, native, threads

MADE = ("F32", "BF16", "Q8_CHANNEL", "Q4_0")


def turned(to: str, *weights: Stored, count: int = 2, **more: Any) -> Any:
    parts = [(weight.data, weight.order) for weight in weights]
    stored = [weight.format for weight in weights]
    return native.Matrix.pack(threads(count), to, parts, weights[0].inputs, stored=stored, **more)


def expected(to: str, stored: Stored) -> Floats:
    weight = Weight(KNOWN[stored.format], stored.data, stored.inputs, stored.order, stored.columns)
    return convert(weight, KNOWN[to]).dequantize()


def same(to: str, found: Floats, wanted: Floats, exact: Floats) -> None:
    """To the last bit; but sums of squares are rounded elsewhere, so of two scales for four bits that are as
    good, another may be taken."""
    if to == "Q4_0":
        assert np.mean(found == wanted) > 0.98
        errors = [np.square(one - exact).sum() for one in (found, wanted)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-3, abs=1e-12)
    else:
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("to", MADE)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (43, 80), (33, 544), (16, 256)])
def test_what_a_weight_becomes(outputs: int, inputs: int, to: str, format: str) -> None:
    stored = random_stored(outputs, inputs, format)
    matrix = turned(to, stored)
    assert (matrix.outputs, matrix.inputs, matrix.format) == (outputs, inputs, to)
    assert matrix.nbytes == native.Matrix.bytes_of(to, outputs, inputs)
    same(to, matrix.dequantize(), expected(to, stored), stored.dequantize())


@pytest.mark.parametrize("to", MADE)
def test_formats_meet_within_a_panel(to: str) -> None:
    """What is in the format already stays as it is, to the last bit."""
    weights = [random_stored(outputs, 96, format) for outputs, format in ((7, "Q5_0"), (19, "Q8_0"), (9, to))]
    found = turned(to, *weights, count=1).dequantize()
    wanted = np.concatenate([expected(to, weight) for weight in weights])
    same(to, found, wanted, np.concatenate([weight.dequantize() for weight in weights]))
    assert np.array_equal(found[26:], weights[2].dequantize())


@pytest.mark.parametrize("to", MADE)
def test_rows_and_inputs_in_an_order_of_their_own(to: str) -> None:
    """The matrix has its inputs in order: what it is multiplied with need not be shuffled any more."""
    draw = np.random.default_rng(0)
    order, columns = draw.permutation(20)[:17].astype(np.int32), draw.permutation(64).astype(np.int32)
    plain = random_stored(20, 64, "U4_32")
    stored = Stored(plain.kind, plain.data, 64, order, columns)
    matrix = turned(to, stored, columns=columns)
    same(to, matrix.dequantize(), expected(to, stored), stored.dequantize())


@pytest.mark.parametrize("to", MADE)
def test_special_numbers(to: str) -> None:
    """Zeros, constants, the largest and smallest scales, and numbers half-way between two of bfloat16."""
    values = torch.zeros(6, 64)
    values[1] = 2.0
    values[2, 3] = -1e-6
    values[3] = 1e-8
    values[4, 1::2] = 1.00390625
    values[5] = torch.linspace(-60000, 60000, 64)
    stored = float_weight(values)
    same(to, turned(to, stored).dequantize(), expected(to, stored), stored.dequantize())


def test_nothing_becomes_a_format_that_only_files_have() -> None:
    stored = random_stored(4, 256, "Q8_0")
    with pytest.raises(ValueError, match="format = 'Q4_K': nothing is turned into it"):
        turned("Q4_K", stored)
    with pytest.raises(ValueError, match="stored has 1 formats; parts has 2"):
        native.Matrix.pack(threads(1), "Q4_0", [(stored.data, None)] * 2, 256, stored=["Q8_0"])
