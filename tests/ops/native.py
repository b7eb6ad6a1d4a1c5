"""Small programs of native operations, and float64 oracles for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outrider.ops.cpu import extension
from outrider.quantization.quantize import convert
from outrider.quantization.weight import Format, Weight, groups_of

native = extension.require()
INSTRUCTION_SETS: list[str] = native.instruction_sets()
FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "int8", "int8_channel", "int4", "int4_min")
ROWS = 64


@cache
def threads(count: int) -> Any:
    return native.Threads(count)


def random_weight(outputs: int, inputs: int, format: Format, seed: int = 0) -> Weight:
    generator = torch.Generator().manual_seed(seed)
    return convert(Weight("float32", torch.randn(outputs, inputs, generator=generator)), format)


def pack(weight: Weight, bias: Tensor | None = None) -> Any:
    return native.Matrix.pack(weight.format, weight.values, scales=weight.scales, mins=weight.mins, bias=bias)


def one_op(
    width: int, record: Callable[[Any, int], int], instruction_set: str, count: int = 1
) -> Callable[[Tensor], Tensor]:
    """A function [rows, width] -> [rows, out] that runs what `record` adds to an input."""
    program = native.Program(threads(count), instruction_set)
    program.output(record(program, program.input(width)))

    def run(x: Tensor) -> Tensor:
        rows = len(x)
        return torch.from_numpy(program.run([0] * rows, [0], [rows], [[]], [0], x.contiguous()))

    return run


def as_computed(x: Tensor, format: Format) -> Tensor:
    """float64: the activations that a format's kernel multiplies, after their rounding."""
    if format == "float32":
        return x.double()
    if format == "bfloat16":
        return x.bfloat16().double()
    groups = groups_of(x)
    largest = groups.abs().amax(dim=-1, keepdim=True)
    # Not `127 / largest`, which PyTorch rounds twice: a code on the edge would fall to the other side.
    inverse = torch.div(torch.tensor(127.0), largest)
    codes = (groups * inverse.masked_fill(largest < 2.0**-121, 0.0)).round()
    return (codes.double() * (largest / 127).double()).flatten(1)[:, : x.shape[1]]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest error of a row, of the largest value of that row."""
    error = (actual.double() - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)
    return float(error.max())


def linear_error(actual: Tensor, x: Tensor, weight: Weight, bias: Tensor | None = None) -> float:
    """The largest error of a linear layer's output, of the sum of the magnitudes that were added up in it.

    x: float64, as the kernel multiplies it.
    """
    w = weight.dequantize().double().T
    b = torch.zeros(w.shape[1], dtype=torch.float64) if bias is None else bias.double()
    error = (actual.double() - (x @ w + b)).abs() / (x.abs() @ w.abs() + b.abs() + 1e-30)
    return float(error.max())


def row_depends_on_others(f: Callable[[Tensor], Tensor], x: Tensor, seed: int = 0) -> list[int]:
    """The numbers of rows, of 1 to all, with which some row of `f` changes in any bit."""
    whole = f(x)
    draw = np.random.default_rng(seed)
    found = []
    for rows in range(1, len(x) + 1):
        start = int(draw.integers(0, len(x) - rows + 1))
        order = torch.from_numpy(draw.permutation(len(x))[:rows].copy())
        same = torch.equal(f(x[start : start + rows]), whole[start : start + rows])
        if not (same and torch.equal(f(x[order]), whole[order])):
            found.append(rows)
    return found
