"""Small programs of native operations, and float64 oracles for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outrider.ops.cpu import extension
from tests.ops import matrices
from tests.ops.matrices import KINDS, Stored

native = extension.require()
INSTRUCTION_SETS: list[str] = native.instruction_sets()
FORMATS = tuple(KINDS)
ROWS = 64


@cache
def threads(count: int) -> Any:
    return native.Threads(count)


def random_weight(outputs: int, inputs: int, format: str, seed: int = 0) -> Stored:
    return matrices.random_stored(outputs, inputs, format, seed)


def float_weight(values: Tensor) -> Stored:
    return Stored(KINDS["F32"], values.contiguous().numpy().view(np.uint8), values.shape[1])


def pack(*weights: Stored, bias: Tensor | None = None, count: int = 2) -> Any:
    """Weights of one format, one below the other, packed by `count` threads."""
    parts = [(weight.data, weight.order) for weight in weights]
    first = weights[0]
    return native.Matrix.pack(
        threads(count), first.format, parts, first.inputs, columns=first.columns, bias=bias
    )


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


def as_computed(x: Tensor, format: str) -> Tensor:
    """float64: the activations that a format's kernel multiplies, after their rounding."""
    return torch.from_numpy(matrices.as_computed(x.numpy(), format))


def exact(weight: Stored) -> Tensor:
    """float64 [outputs, inputs]."""
    return torch.from_numpy(weight.dequantize()).double()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest error of a row, of the largest value of that row."""
    error = (actual.double() - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)
    return float(error.max())


def linear_error(actual: Tensor, x: Tensor, weight: Stored, bias: Tensor | None = None) -> float:
    """The largest error of a linear layer's output, of the sum of the magnitudes that were added up in it.

    x: float64, as the kernel multiplies it.
    """
    magnitudes = torch.from_numpy(weight.magnitudes()).double()
    b = torch.zeros(weight.outputs, dtype=torch.float64) if bias is None else bias.double()
    error = (actual.double() - (x @ exact(weight).T + b)).abs()
    return float((error / (x.abs() @ magnitudes.T + b.abs() + 1e-30)).max())


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
