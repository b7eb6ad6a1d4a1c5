"""Activations, and products with gates: each number by itself."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.ops.cuda.device import launch
from outrider.ops.shapes import Activation, GateActivation

TILE = 1024  # numbers of a program


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """The hyperbolic tangent, also of large magnitudes, whose exponentials overflow."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def opened(gate, activation: tl.constexpr):
    """What a gate lets through."""
    if activation == "silu":
        return gate * sigmoid(gate)
    if activation == "sigmoid":
        return sigmoid(gate)
    if activation == "gelu":
        return 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    if activation == "gelu_tanh":
        return 0.5 * gate * (1.0 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)))
    return gate


@triton.jit
def _gate(gate, x, out, width, gate_width, activation: tl.constexpr, tile: tl.constexpr):
    row, n = tl.program_id(0).to(tl.int64), tl.program_id(1) * tile + tl.arange(0, tile)
    real = n < width
    value = tl.load(x + row * width + n, mask=real, other=0.0).to(tl.float32)
    given = tl.load(gate + row * gate_width + n % gate_width, mask=real, other=0.0).to(tl.float32)
    if activation == "swiglu_clamped":
        given, value = tl.minimum(given, 7.0), tl.minimum(tl.maximum(value, -7.0), 7.0)
        y = given * sigmoid(1.702 * given) * (value + 1.0)
    else:
        y = opened(given, activation) * value
    tl.store(out + row * width + n, y.to(out.dtype.element_ty), mask=real)


def gate_by(
    gate: Tensor, x: Tensor, activation: Activation | GateActivation | None, dtype: torch.dtype
) -> Tensor:
    """activation(gate) * x: [rows, width] in `dtype`. gate: [rows, width], or [rows, 1] for all columns."""
    rows, width = x.shape
    out = torch.empty_like(x, dtype=dtype)
    launch(
        _gate,
        (rows, triton.cdiv(width, TILE)),
        gate,
        x,
        out,
        width,
        gate.shape[1],
        activation or "none",
        min(TILE, triton.next_power_of_2(width)),
    )
    return out
