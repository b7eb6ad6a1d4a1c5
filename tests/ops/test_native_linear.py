"""Native linear layers and embeddings: against float64, and bit for bit by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ops.matrices import KINDS
from tests.ops.native import (
    INSTRUCTION_SETS,
    ROWS,
    as_computed,
    exact,
    linear_error,
    native,
    one_op,
    pack,
    random_weight,
    relative_error,
    row_depends_on_others,
    threads,
)

SHAPES = [(96, 64), (43, 80), (5, 576), (1, 3), (200, 33)]
every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
# A format of each kind of kernel; test_native_formats.py has them all.
KERNELS = ("F32", "BF16", "Q8_0", "Q8_CHANNEL", "Q4_0", "Q4_1", "Q6_K", "F8_BLOCK")
every_format = pytest.mark.parametrize("format", KERNELS)


@every_set
@every_format
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_linear_against_float64(outputs: int, inputs: int, format: str, instruction_set: str) -> None:
    weight, bias = random_weight(outputs, inputs, format), torch.randn(outputs)
    linear = one_op(inputs, lambda p, x: p.linear(x, [pack(weight, bias=bias)]), instruction_set, 2)
    x = torch.randn(ROWS, inputs)
    assert linear_error(linear(x), as_computed(x, format), weight, bias) < 5e-6


@every_set
@every_format
def test_residual_and_gate_against_float64(format: str, instruction_set: str) -> None:
    a, b = random_weight(70, 96, format, 1), random_weight(70, 96, format, 2)
    down = random_weight(96, 70, format, 3)

    def block(p: Any, x: int) -> int:
        return int(p.linear(p.gated(x, [pack(a)], [pack(b)], "silu"), [pack(down)], x))

    x = torch.randn(9, 96)
    gate, up = (as_computed(x, format) @ exact(w).T for w in (a, b))
    inner = one_op(96, lambda p, x: p.gated(x, [pack(a)], [pack(b)], "silu"), instruction_set)(x)
    assert relative_error(inner, gate * torch.sigmoid(gate) * up) < 2e-5
    expected = as_computed(inner, format) @ exact(down).T + x.double()
    assert relative_error(one_op(96, block, instruction_set)(x), expected) < 2e-5


@every_set
@every_format
@pytest.mark.parametrize(("outputs", "inputs"), [(43, 80), (96, 288)])
def test_a_row_is_bit_identical_in_any_batch(
    outputs: int, inputs: int, format: str, instruction_set: str
) -> None:
    weight = pack(random_weight(outputs, inputs, format), bias=torch.randn(outputs))
    x = torch.randn(ROWS, inputs) * torch.logspace(-3, 3, ROWS)[:, None]
    results = []
    for count in (1, 2, 3):
        linear = one_op(inputs, lambda p, x: p.linear(x, [weight]), instruction_set, count)
        assert row_depends_on_others(linear, x) == []
        results.append(linear(x))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_kernel_whose_order_depends_on_the_rows_is_found() -> None:
    """A planted fault: summed in halves from four rows on."""
    weight = torch.randn(40, 576)

    def faulty(x: Tensor) -> Tensor:
        if len(x) < 4:
            return (x[:, None] * weight).sum(dim=-1)
        return (x[:, None, ::2] * weight[:, ::2]).sum(dim=-1) + (x[:, None, 1::2] * weight[:, 1::2]).sum(
            dim=-1
        )

    assert row_depends_on_others(faulty, torch.randn(8, 576)) == [1, 2, 3]


@every_set
def test_weights_of_several_formats_side_by_side(instruction_set: str) -> None:
    sizes: tuple[tuple[int, str], ...] = ((40, "Q4_1"), (24, "Q8_0"), (7, "BF16"))
    parts = [pack(random_weight(n, 96, f, n)) for n, f in sizes]

    def residual(p: Any, x: int) -> int:
        return int(p.linear(x, [pack(random_weight(71, 96, "F32", 9))]))

    x = torch.randn(5, 96)
    together = one_op(96, lambda p, x: p.linear(x, parts, residual(p, x)), instruction_set, 2)(x)
    expected = one_op(96, residual, instruction_set)(x)
    first = 0
    for part in parts:

        def alone(p: Any, x: int, part: Any = part) -> int:
            return int(p.linear(x, [part]))

        last = first + part.outputs
        y = expected[:, first:last] + one_op(96, alone, instruction_set)(x)
        assert torch.equal(together[:, first:last], y)
        first = last


@every_set
@every_format
def test_norm_fused_with_a_linear_layer_changes_nothing(format: str, instruction_set: str) -> None:
    weight, norm = random_weight(48, 80, format), torch.randn(80)
    x = torch.randn(7, 80)
    fused = one_op(80, lambda p, x: p.linear(p.norm(x, norm, 1e-5), [pack(weight)]), instruction_set)
    normed = one_op(80, lambda p, x: p.norm(x, norm, 1e-5), instruction_set)(x)
    apart = one_op(80, lambda p, x: p.linear(x, [pack(weight)]), instruction_set)(normed)
    assert torch.equal(fused(x), apart)


@every_set
@every_format
def test_embedding_is_the_weights_row(format: str, instruction_set: str) -> None:
    weight = random_weight(43, 80, format)
    program = native.Program(threads(2), instruction_set)
    program.output(program.embed(pack(weight)))
    tokens = [42, 0, 17, 17]
    got = torch.from_numpy(program.run(tokens, [0], [4], [[]], [0]))
    assert np.array_equal(got.numpy(), weight.dequantize()[tokens])


@every_format
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 140),
    seed=st.integers(0, 999),
    instruction_set=st.sampled_from(INSTRUCTION_SETS),
)
def test_any_shape(
    format: str, rows: int, outputs: int, inputs: int, seed: int, instruction_set: str
) -> None:
    weight = random_weight(outputs, inputs, format, seed)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))
    got = one_op(inputs, lambda p, x: p.linear(x, [pack(weight)]), instruction_set, 2)(x)
    assert linear_error(got, as_computed(x, format), weight) < 5e-6


@every_set
@every_format
def test_one_value_that_is_not_finite(format: str, instruction_set: str) -> None:
    """It makes no plausible number of its row, and nothing of the others."""
    weight = pack(random_weight(33, 80, format))
    linear = one_op(80, lambda p, x: p.linear(x, [weight]), instruction_set)
    before = linear(x := torch.randn(5, 80))
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in (0, 13, 31, 32, 70, 79):
            damaged = x.clone()
            damaged[2, place] = value
            after = linear(damaged)
            assert not after[2].isfinite().any()
            assert KINDS[format].form != "int8" or after[2].isnan().all()
            others = [0, 1, 3, 4]
            assert torch.equal(after[others], before[others])


@every_set
@every_format
def test_groups_of_tiny_values(format: str, instruction_set: str) -> None:
    """They count as next to nothing beside a group of ordinary values."""
    weight = random_weight(33, 64, format)
    packed = pack(weight)
    for tiny in (1e-45, 1e-38, 3.7e-37, 3.8e-37):
        x = torch.randn(3, 64)
        x[1, :32] = tiny * torch.linspace(-1, 1, 32)
        x[2] = 0
        x[2, 5] = -tiny
        y = one_op(64, lambda p, x: p.linear(x, [packed]), instruction_set)(x)
        x[1, :32] = 0
        assert linear_error(y[:2], as_computed(x[:2], format), weight) < 5e-6
        assert float(y[2].abs().max()) < 2 * tiny * float(exact(weight).abs().max()) + 1e-37


def test_extreme_rows() -> None:
    """Zeros, tiny and huge values give finite results, and one row of NaN stays alone."""
    for format in KERNELS:
        weight = pack(random_weight(33, 64, format))

        def record(p: Any, x: int, weight: Any = weight) -> int:
            return int(p.linear(x, [weight]))

        x = torch.randn(5, 64)
        x[1], x[2], x[3], x[4] = 0.0, 1e-30, 1e30, torch.nan
        for instruction_set in INSTRUCTION_SETS:
            y = one_op(64, record, instruction_set)(x)
            assert bool(y[:4].isfinite().all())
            assert bool((y[1] == 0).all())
            assert bool(y[4].isnan().all())
