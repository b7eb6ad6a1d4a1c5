"""A mixture of experts: who goes where, and the sum of what a row's experts compute, in order of rank."""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.ops.cuda.device import launch
from outrider.ops.cuda.gates import gate_by
from outrider.ops.cuda.linear import STRIP, Mixture, linear
from outrider.ops.cuda.matrix import GpuMatrix
from outrider.ops.shapes import Activation, Routing

TILE = 512  # numbers of a program


@triton.jit
def _route(scores, bias, positions, expert_of, weights_out, factor, count: tl.constexpr, chosen: tl.constexpr,
           padded: tl.constexpr, ranks: tl.constexpr, softmax: tl.constexpr, normalised: tl.constexpr,
           has_bias: tl.constexpr):  # fmt: skip
    """A program a row: its experts by rank, and their weights. What pads goes to none: to `count`."""
    row, n, rank = tl.program_id(0), tl.arange(0, padded), tl.arange(0, ranks)
    score = tl.load(scores + row * count + n, mask=n < count, other=float("-inf")).to(tl.float32)
    if softmax:
        order = score
        powers = tl.exp(score - tl.max(score, 0))
        weight = tl.div_rn(powers, tl.broadcast_to(tl.sum(powers, 0), [padded]))
    else:
        weight = tl.where(n < count, 1.0 / (1.0 + tl.exp(-score)), 0.0)
        order = tl.where(n < count, weight, float("-inf"))
    if has_bias:
        order = order + tl.load(bias + n, mask=n < count, other=0.0)
    expert = tl.zeros([ranks], tl.int32)
    picked = tl.zeros([ranks], tl.float32)
    total = tl.sum(tl.zeros([ranks], tl.float32), 0)
    for at in range(chosen):
        best = tl.max(order, 0)
        first = tl.minimum(tl.min(tl.where(order == best, n, padded), 0), count - 1)
        one = tl.sum(tl.where(n == first, weight, 0.0), 0)
        expert, picked = tl.where(rank == at, first, expert), tl.where(rank == at, one, picked)
        total = total + one
        order = tl.where(n == first, float("-inf"), order)
    if normalised:
        picked = tl.div_rn(picked, tl.broadcast_to(total, [ranks]))
    expert = tl.where(tl.load(positions + row) >= 0, expert, count)
    tl.store(expert_of + row * chosen + rank, expert, mask=rank < chosen)
    tl.store(weights_out + row * chosen + rank, picked * factor, mask=rank < chosen)


@triton.jit
def _combine(outputs, weights, residual, out, width, scale, chosen: tl.constexpr, tile: tl.constexpr,
             added: tl.constexpr):  # fmt: skip
    row, n = tl.program_id(0).to(tl.int64), tl.program_id(1) * tile + tl.arange(0, tile)
    real, y = n < width, tl.zeros([tile], tl.float32)
    for rank in range(chosen):
        one = tl.load(outputs + (row * chosen + rank) * width + n, mask=real, other=0.0)
        y = tl.fma(tl.broadcast_to(tl.load(weights + row * chosen + rank), [tile]), one, y)
    if added:
        before = tl.load(residual + row * width + n, mask=real, other=0.0)
        y = tl.fma(y, tl.full([tile], 1.0, tl.float32) * scale, before)
    else:
        y = y * scale
    tl.store(out + row * width + n, y, mask=real)


def experts(
    x: Tensor,
    scores: Tensor,
    stacks: tuple[GpuMatrix, GpuMatrix, GpuMatrix],
    routing: Routing,
    activation: Activation,
    positions: Tensor,
    residual: Tensor | None,
    scale: float,
    bias: Tensor | None,
) -> Tensor:
    """See `outrider.ops.base.Ops.experts`: float32 [rows, outputs]. stacks: of gates, ups and downs."""
    gates, ups, downs = stacks
    mixture, weights = _mixture(scores, routing, positions, bias)
    gate, up = (linear(x, [stack], mixture=mixture) for stack in (gates, ups))
    inner = gate_by(gate, up, activation, x.dtype)
    outputs = linear(inner, [downs], mixture=replace(mixture, share=1))
    rows, width = len(x), downs.outputs
    out = outputs.new_empty((rows, width))
    launch(_combine, (rows, triton.cdiv(width, TILE)),
        outputs, weights, outputs if residual is None else residual, out, width, scale, routing.chosen,
        min(TILE, triton.next_power_of_2(width)), residual is not None,
    )  # fmt: skip
    return out


def _mixture(
    scores: Tensor, routing: Routing, positions: Tensor, bias: Tensor | None
) -> tuple[Mixture, Tensor]:
    """Where rows go, and the weights of their experts, float32 [rows * chosen].

    Results are sorted by expert and cut into strips, on the device: how many strips there are can only be
    bounded beforehand.
    """
    rows, count, chosen = len(scores), routing.count, routing.chosen
    results, device = rows * chosen, scores.device
    expert_of = torch.empty(results, dtype=torch.int32, device=device)
    weights = torch.empty(results, dtype=torch.float32, device=device)
    launch(_route, (rows,),
        scores, weights if bias is None else bias, positions, expert_of, weights, routing.factor, count,
        chosen, triton.next_power_of_2(count), triton.next_power_of_2(chosen), routing.scoring == "softmax",
        routing.normalised, bias is not None,
    )  # fmt: skip
    sorted_by, order = expert_of.sort(stable=True)
    each = (expert_of[:, None] == torch.arange(count + 1, device=device)).sum(0)
    strips = (each + STRIP - 1) // STRIP
    strips[count:].zero_()  # nobody computes what pads
    most = min(results, results // STRIP + count)
    inside = torch.arange(results, device=device) - (each.cumsum(0) - each)[sorted_by]
    place = (strips.cumsum(0) - strips)[sorted_by] * STRIP + inside
    place = torch.where(sorted_by < count, place, most * STRIP)
    slots = torch.full((most * STRIP + 1,), -1, dtype=torch.int32, device=device)
    slots[place] = order.to(torch.int32)
    experts = torch.searchsorted(strips.cumsum(0), torch.arange(most, device=device), right=True)
    experts = torch.where(experts < count, experts, -1).to(torch.int32)
    return Mixture(slots, experts, expert_of.clamp(max=count - 1), chosen), weights
