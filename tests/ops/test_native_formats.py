"""Matrices of every format: packed from a file's own rows, in no more bytes, and worth exactly the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ops.matrices import KINDS, Bytes, Kind, Stored, random_stored, scales_of
from tests.ops.native import (
    FORMATS,
    INSTRUCTION_SETS,
    as_computed,
    linear_error,
    native,
    one_op,
    pack,
    row_depends_on_others,
    threads,
)

LANES = 16
every_format = pytest.mark.parametrize("format", FORMATS)
every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)


def linear_of(matrix: Any, instruction_set: str, count: int = 1) -> Callable[[Tensor], Tensor]:
    return one_op(matrix.inputs, lambda p, x: p.linear(x, [matrix]), instruction_set, count)


def test_the_names_of_formats() -> None:
    assert native.formats() == list(FORMATS)


@every_format
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 256), (43, 80), (33, 544), (200, 33), (5, 768)])
def test_a_matrix_is_worth_what_the_file_says(outputs: int, inputs: int, format: str) -> None:
    """Equal to the last bit: float32 scale of a group, times the code, plus the minimum."""
    stored = random_stored(outputs, inputs, format)
    matrix = pack(stored)
    assert (matrix.outputs, matrix.inputs, matrix.format) == (outputs, inputs, format)
    assert np.array_equal(matrix.dequantize(), stored.dequantize())


@every_format
@every_set
def test_a_row_of_a_table(instruction_set: str, format: str) -> None:
    stored, tokens = random_stored(43, 300, format), [42, 0, 17, 17]
    program = native.Program(threads(1), instruction_set)
    program.output(program.embed(pack(stored)))
    assert np.array_equal(program.run(tokens, [0], [4], [[]], [0]), stored.dequantize()[tokens])


@every_format
def test_linear_against_float64(format: str) -> None:
    stored, bias = random_stored(43, 544, format), torch.randn(43)
    matrix, x = pack(stored, bias=bias), torch.randn(14, 544) * torch.logspace(-3, 3, 14)[:, None]
    inputs = as_computed(x, format)
    for name in INSTRUCTION_SETS:
        assert linear_error(linear_of(matrix, name, 2)(x), inputs, stored, bias) < 5e-6


@every_format
def test_a_row_is_bit_identical_in_any_batch(format: str) -> None:
    """For every number of rows of a strip, whatever the number of threads."""
    matrix = pack(random_stored(37, 352, format), bias=torch.randn(37))
    x = torch.randn(27, 352) * torch.logspace(-3, 3, 27)[:, None]
    for name in INSTRUCTION_SETS:
        linears = [linear_of(matrix, name, count) for count in (1, 2, 3)]
        assert row_depends_on_others(linears[1], x) == []
        assert torch.equal(linears[0](x), linears[1](x))
        assert torch.equal(linears[0](x), linears[2](x))


@every_format
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 40),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 600),
    seed=st.integers(0, 999),
    instruction_set=st.sampled_from(INSTRUCTION_SETS),
)
def test_any_shape(
    format: str, rows: int, outputs: int, inputs: int, seed: int, instruction_set: str
) -> None:
    stored = random_stored(outputs, inputs, format, seed)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))
    got = linear_of(pack(stored), instruction_set, 2)(x)
    assert linear_error(got, as_computed(x, format), stored) < 5e-6


def extreme(kind: Kind, inputs: int) -> Stored:
    """Rows of the lowest codes and the highest, under the largest scale, the least one, zero and others."""
    fills = (0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0, 0x55, 0xAA)
    scales = np.array([65504, -65504, 2.0**-24, 2.0**-14, 0, -0.0, 1, -3], np.float16)
    exponents = (0, 1, 2, 3, 120, 127, 130, 180)
    data = np.empty((len(fills) * len(scales), kind.row_bytes(inputs)), np.uint8)
    for i, row in enumerate(data):
        row[:] = fills[i % len(fills)]
        blocks = row[kind.head :].reshape(-1, kind.size)
        if kind.name == "MXFP4":
            blocks[:, 0] = exponents[i // len(fills)]
        for at in kind.halves:
            blocks[:, at : at + 2] = scales[i // len(fills) : i // len(fills) + 1].view(np.uint8)
    if kind.head:
        data[:, : kind.head] = scales_of(np.random.default_rng(0), (len(data), 1)).view(np.uint8)
    return Stored(kind, data, inputs)


@pytest.mark.parametrize("format", [name for name, kind in KINDS.items() if kind.halves or name == "MXFP4"])
def test_extreme_codes_and_scales(format: str) -> None:
    stored = extreme(KINDS[format], 512)
    expected = stored.dequantize()
    assert np.isfinite(expected).all()
    assert np.array_equal(pack(stored).dequantize(), expected)
    ones = torch.ones(1, 512)
    x = torch.cat([torch.randn(3, 512), ones, -ones])  # of ones, sums are as large as they come
    for name in INSTRUCTION_SETS:
        assert linear_error(linear_of(pack(stored), name)(x), as_computed(x, format), stored) < 5e-6


def test_every_exponent_of_mxfp4() -> None:
    rows = np.zeros((256, 17), np.uint8)
    rows[:, 0], rows[:, 1:] = np.arange(256), np.arange(16) * 17
    stored = Stored(KINDS["MXFP4"], rows, 32)
    with np.errstate(over="ignore"):
        expected = stored.dequantize()
    assert np.array_equal(pack(stored).dequantize(), expected)


def e4m3(codes: Bytes, format: str) -> Stored:
    """Rows of these codes with the scale 1."""
    kind = KINDS[format]
    blocks = codes.reshape(len(codes), -1, kind.block if kind.block > 1 else codes.shape[1])
    one = np.broadcast_to(np.ones(1, np.float32).view(np.uint8), (*blocks.shape[:2], 4))
    return Stored(kind, np.concatenate([one, blocks], axis=2).reshape(len(codes), -1), codes.shape[1])


@pytest.mark.parametrize("format", ["F8_E4M3", "F8_BLOCK"])
def test_every_code_of_8_bit_floats(format: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    codes[codes & 127 == 127] = 0  # NaN
    stored = e4m3(codes[None], format)
    value = stored.dequantize()
    assert np.array_equal(pack(stored).dequantize(), value)
    for name in INSTRUCTION_SETS:
        assert np.array_equal(linear_of(pack(stored), name)(torch.eye(256))[:, 0].numpy(), value[0])


@pytest.mark.parametrize("format", ["F8_E4M3", "F8_BLOCK"])
@pytest.mark.parametrize("place", [0, 3, 100, 130])
@pytest.mark.parametrize("nan", [0x7F, 0xFF])
def test_an_8_bit_float_that_is_nan_is_in_every_sum(format: str, place: int, nan: int) -> None:
    codes = np.random.default_rng(0).integers(0, 127, (20, 131), np.uint8)
    codes = np.pad(codes, ((0, 0), (0, 256 - 131)))
    plain, codes[17, place] = e4m3(codes, format), nan
    x = torch.randn(3, 256)
    for name in INSTRUCTION_SETS:
        before, after = linear_of(pack(plain), name)(x), linear_of(pack(e4m3(codes, format)), name)(x)
        assert after[:, 17].isnan().all()
        others = np.arange(20) != 17
        assert torch.equal(before[:, others], after[:, others])


@every_format
@settings(max_examples=10, deadline=None)
@given(outputs=st.integers(1, 100), inputs=st.integers(1, 1100))
def test_bytes(format: str, outputs: int, inputs: int) -> None:
    """They are known before a matrix is made, and are those of the file but for padding."""
    matrix = pack(random_stored(outputs, inputs, format))
    assert matrix.nbytes == native.Matrix.bytes_of(format, outputs, inputs)
    kind = KINDS[format]
    panels, block = -(-outputs // LANES), max(32, kind.block)
    row = kind.row_bytes(-(-inputs // block) * block)
    assert panels * LANES * row <= matrix.nbytes < panels * (LANES * row + 64)


@every_format
def test_no_byte_more_than_in_a_file_whose_rows_fill_blocks_and_panels(format: str) -> None:
    assert native.Matrix.bytes_of(format, 8960, 1536) == 8960 * KINDS[format].row_bytes(1536)


@every_format
def test_parts_with_orders_and_strides(format: str) -> None:
    """Weights one below the other, in any order of rows, of which the file has others between."""
    draw = np.random.default_rng(0)
    wide = random_stored(70, 96, format, 1)
    strided = replace(wide, data=wide.data[3:60:3])
    gap = np.zeros((21, wide.data.shape[1] + 5), np.uint8)
    gap[:, 2:-3] = random_stored(21, 96, format, 2).data
    inside = replace(wide, data=gap[:, 2:-3])
    ordered = replace(
        random_stored(30, 96, format, 3), order=draw.choice(30, 17, replace=False).astype(np.int32)
    )
    backwards = replace(wide, data=wide.data[::-1])
    parts = (strided, inside, ordered, backwards)
    expected = np.concatenate([part.dequantize() for part in parts])
    for pool in (1, 2, 3):
        matrix = pack(*parts, count=pool)
        assert np.array_equal(matrix.dequantize(), expected)
    alone = pack(Stored(wide.kind, np.concatenate([part_rows(part) for part in parts]), 96))
    x = torch.randn(5, 96)
    together, apart = (linear_of(w, INSTRUCTION_SETS[0])(x) for w in (matrix, alone))
    assert torch.equal(together, apart)


def part_rows(part: Stored) -> Bytes:
    return part.data if part.order is None else part.data[part.order]


@every_set
@pytest.mark.parametrize("format", ["F32", "BF16", "Q4_K", "U4_32"])
def test_columns_say_which_input_each_column_is_multiplied_with(format: str, instruction_set: str) -> None:
    inputs = 288
    order = np.random.default_rng(0).permutation(inputs).astype(np.int32)
    plain = random_stored(43, inputs, format)
    stored = replace(plain, columns=order)
    matrix = pack(stored)
    assert np.array_equal(matrix.dequantize(), stored.dequantize())
    linear, in_order = linear_of(matrix, instruction_set, 2), linear_of(pack(plain), instruction_set)
    x = torch.randn(20, inputs)
    assert torch.equal(linear(x), in_order(x[:, order]))
    assert row_depends_on_others(linear, x) == []

    def beside(p: Any, x: int) -> int:
        """Another weight of the same input, which reads it as it is; and a norm goes first."""
        return int(p.linear(p.norm(x, torch.ones(inputs), 1e-5), [matrix, pack(plain)]))

    both = one_op(inputs, beside, instruction_set)(x)
    normed = one_op(inputs, lambda p, x: p.norm(x, torch.ones(inputs), 1e-5), instruction_set)(x)
    assert torch.equal(both[:, :43], linear(normed))
    assert torch.equal(both[:, 43:], in_order(normed))


@every_set
def test_a_table_with_columns(instruction_set: str) -> None:
    stored = replace(
        random_stored(9, 70, "Q8_0"), columns=np.random.default_rng(1).permutation(70).astype(np.int32)
    )
    program = native.Program(threads(1), instruction_set)
    program.output(program.embed(pack(stored)))
    assert np.array_equal(program.run([8, 0], [0], [2], [[]], [0]), stored.dequantize()[[8, 0]])


@pytest.mark.parametrize("format", FORMATS)
def test_a_change_of_any_part_of_a_block_is_seen(format: str) -> None:
    """A planted fault: no byte of a file's row is without effect."""
    kind, inputs = KINDS[format], max(32, KINDS[format].block)
    plain = next(
        stored
        for seed in count()
        if (stored := random_stored(1, inputs, format, seed)).dequantize().reshape(-1, 16).any(axis=1).all()
    )
    rows = plain.data.repeat(plain.data.shape[1], axis=0)
    for byte in range(rows.shape[1]):
        rows[byte, byte] ^= 0x11
    values = pack(Stored(kind, rows, inputs)).dequantize()
    assert np.array_equal(values, Stored(kind, rows, inputs).dequantize())
    assert all(not np.array_equal(row, plain.dequantize()[0]) for row in values)
