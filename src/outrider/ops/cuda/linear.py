"""Linear layers: how a weight is cut, which follows from its shape alone, and the launch of its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.ops.cuda import products
from outrider.ops.cuda.device import INTERPRETED, launch
from outrider.ops.cuda.matrix import GpuMatrix

STRIP = 16  # rows of a product, the fewest that Triton multiplies
TILE = 64  # outputs of a program
LEAST = 256  # inputs of a split; all formats have whole blocks of as many
PROGRAMS = 512  # that keep a large GPU's memory busy
FINISHED = 256  # outputs that a program finishes
TRITON_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class Cut(NamedTuple):
    """How the inputs of a weight are split. chunk: inputs of a split; splits: how many there are."""

    chunk: int
    splits: int

    @classmethod
    def of(cls, outputs: int, inputs: int) -> Cut:
        """By the shape of the weight, and nothing else."""
        pieces = triton.cdiv(inputs, LEAST)
        wanted = min(pieces, max(1, PROGRAMS // triton.cdiv(outputs, TILE)))
        chunk = LEAST * triton.cdiv(pieces, wanted)
        return cls(chunk, triton.cdiv(inputs, chunk))


@dataclass(frozen=True)
class Mixture:
    """Which rows go to which expert.

    slots: int32 [strips * 16], numbers of results, or -1; experts: int32 [strips], or -1; expert_of: int32
    [results]; share: results that read the same row of the input.
    """

    slots: Tensor
    experts: Tensor
    expert_of: Tensor
    share: int


def linear(
    x: Tensor,
    parts: Sequence[GpuMatrix],
    residual: Tensor | None = None,
    scale: float = 1.0,
    mixture: Mixture | None = None,
) -> Tensor:
    """scale * (x W^T + bias), added to `residual`: float32 [rows, outputs of all parts], or [results, ...] of
    a mixture. x: [rows, inputs], contiguous."""
    rows = len(x) if mixture is None else len(mixture.expert_of)
    out = x.new_empty((rows, sum(part.outputs for part in parts)), dtype=torch.float32)
    first = 0
    for part in parts:
        read = x if part.columns is None else x.index_select(1, part.columns)
        _multiply(read, part, out, first, residual, scale, mixture)
        first += part.outputs
    return out


def _multiply(
    x: Tensor,
    part: GpuMatrix,
    out: Tensor,
    first: int,
    residual: Tensor | None,
    scale: float,
    mixture: Mixture | None,
) -> None:
    rows, cut, planes, form = len(out), Cut.of(part.outputs, part.inputs), part.planes, part.format
    partial = out
    if cut.splits > 1:
        partial = out.new_empty((cut.splits, rows, part.outputs))
    if mixture is None:
        strips = strips_of(rows)
        blocks, slots, experts, share = triton.cdiv(rows, strips * STRIP), out, out, 1
    else:
        strips, blocks = 1, len(mixture.experts)
        slots, experts, share = mixture.slots, mixture.experts, mixture.share
    operand, precision = operand_of(x.dtype, planes.codes.dtype, dense=form.dense and not form.scales)
    ends = (residual if residual is not None else out, part.bias if part.bias is not None else out)
    flags = {"with_bias": part.bias is not None, "with_residual": residual is not None}
    launch(products.multiply, (triton.cdiv(part.outputs, TILE), cut.splits, blocks),
        x, out, partial, *ends, planes.codes, *(
            out if plane is None else plane
            for plane in (planes.scales, planes.high, planes.more, planes.factors, planes.table)
        ),
        slots, experts, rows, part.outputs, part.inputs, part.experts * part.outputs, out.shape[1], first,
        scale, chunk=cut.chunk, kind=form.scales, low_bits=form.bits[0], high_bits=form.bits[1],
        zero=form.zero, per=form.per, has_table=planes.table is not None, depth=form.tile, operand=operand,
        precision=precision, tile=TILE, splits=cut.splits, strips=strips, share=share,
        mixture=mixture is not None, **flags,
    )  # fmt: skip
    if cut.splits > 1:
        launch(products.add_splits, (rows, triton.cdiv(part.outputs, FINISHED)),
            partial, out, *ends, out if mixture is None else mixture.expert_of, rows, part.outputs,
            out.shape[1], first, scale, splits=cut.splits, tile=FINISHED, mixture=mixture is not None,
            **flags,
        )  # fmt: skip


def strips_of(rows: int) -> int:
    """Strips that share the loads of a weight."""
    return 1 if rows <= STRIP else 2 if rows <= 2 * STRIP else 4


def operand_of(given: torch.dtype, stored: torch.dtype, *, dense: bool) -> tuple[Any, str]:
    """What is multiplied, and how precisely: two types of 16 bits as they are, or exactly as TF32.

    Triton's interpreter multiplies the bits of bfloat16 as if they were a number; in float32 it is right.
    """
    weight = stored if dense else given
    if given == weight and not INTERPRETED:
        return TRITON_TYPES[given], "ieee"
    return tl.float32, "ieee" if torch.float32 in (given, weight) else "tf32"
