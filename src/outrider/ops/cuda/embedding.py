"""Looking up rows of a table of tokens, in whatever format it is stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.ops.cuda.decode import factors_of, floats, pair, takes_off
from outrider.ops.cuda.device import launch
from outrider.ops.cuda.matrix import GpuMatrix

TILE = 256  # numbers of a program


@triton.jit
def _look_up(tokens, out, codes, scales, high, more, factors, table, outputs: tl.int64, inputs, factor,
             kind: tl.constexpr, low_bits: tl.constexpr, high_bits: tl.constexpr, zero: tl.constexpr,
             per: tl.constexpr, has_table: tl.constexpr, depth: tl.constexpr,
             tile: tl.constexpr):  # fmt: skip
    """A program a row and tile of it."""
    row = tl.program_id(0)
    token = tl.load(tokens + row).to(tl.int64)
    k = tl.program_id(1) * tile + tl.arange(0, tile)
    real = k < inputs
    if depth > 0:
        value = floats(codes, token * inputs + k, real, kind).to(tl.float32)
        if kind == "fp8_block":
            blocks = (inputs + depth - 1) // depth
            value = value * tl.load(scales + token * blocks + k // depth, mask=real, other=0.0)
        if kind == "int8" or kind == "fp8":
            value = value * tl.load(scales + token)
    else:
        inside = tl.minimum(k, inputs - 1)  # planes hold whole groups
        group, half = inside // 32, inside % 32 // 16
        low, upper = pair(codes, high, table, more, group, inside % 16, token, outputs, low_bits, high_bits,
                          zero, kind, per, has_table)  # fmt: skip
        scale, other, least, less = factors_of(scales, more, factors, group, token, outputs, kind, per)
        value = tl.where(half == 0, low * scale, upper * other)
        if takes_off(kind):
            value = value - tl.where(half == 0, least, less)
    tl.store(out + row.to(tl.int64) * inputs + k, value * factor, mask=real)


def look_up(tokens: Tensor, table: GpuMatrix, scale: float) -> Tensor:
    """scale times the tokens' rows, float32 [rows, hidden]. tokens: int32 [rows]."""
    planes, form, width = table.planes, table.format, table.inputs
    out = torch.empty((len(tokens), width), dtype=torch.float32, device=tokens.device)
    launch(_look_up, (len(tokens), triton.cdiv(width, TILE)),
        tokens, out, planes.codes, *(
            out if plane is None else plane
            for plane in (planes.scales, planes.high, planes.more, planes.factors, planes.table)
        ),
        table.outputs, width, scale, form.scales, *form.bits, form.zero, form.per, planes.table is not None,
        form.tile, TILE,
    )  # fmt: skip
    return out
