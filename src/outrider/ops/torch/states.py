"""Layers that keep a state, in plain PyTorch: request by request, and row after row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import StateCache
from outrider.ops.shapes import ConvShape, DeltaShape
from outrider.ops.torch.batch import Batch

LEAST = 1e-6  # of the squared length of a key or a query


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: StateCache, shape: ConvShape, batch: Batch
) -> Tensor:
    outputs = []
    for rows, before, written in _requests(x.float(), cache, batch):
        seen = torch.cat([before, rows])
        y = torch.zeros_like(rows) if bias is None else bias.expand_as(rows)
        for tap in range(shape.kernel):
            y = y + seen[tap : tap + len(rows)] * weight[:, tap]
        for row, slot in written.items():
            cache.values[slot] = seen[row + 1 : row + shape.kernel]
        outputs.append(F.silu(y) if shape.silu else y)
    return torch.cat(outputs).to(x)


def delta(
    qkv: Tensor,
    forget: Tensor,
    write: Tensor,
    rates: Tensor,
    bias: Tensor,
    cache: StateCache,
    shape: DeltaShape,
    batch: Batch,
) -> Tensor:
    keys = shape.key_heads * shape.key_dim
    heads = torch.arange(shape.value_heads)
    of = heads % shape.key_heads if shape.tiled else heads * shape.key_heads // shape.value_heads
    kept = torch.exp(rates * F.softplus(forget.float() + bias))  # [rows, value heads]
    written = torch.sigmoid(write.float())
    outputs, first = [], 0
    for rows, state, slots in _requests(qkv.float(), cache, batch):
        q, k, v = torch.tensor_split(rows, (keys, 2 * keys), dim=1)
        q, k = (_of_length_one(one.reshape(len(one), shape.key_heads, -1)[:, of]) for one in (q, k))
        v = v.reshape(len(v), shape.value_heads, -1)
        for row in range(len(rows)):
            state = state * kept[first + row, :, None, None]
            found = (state * k[row, :, :, None]).sum(dim=1)
            change = (v[row] - found) * written[first + row, :, None]
            state = state + k[row, :, :, None] * change[:, None]
            outputs.append((state * q[row, :, :, None]).sum(dim=1).flatten() / shape.key_dim**0.5)
            if row in slots:
                cache.values[slots[row]] = state
        first += len(rows)
    return torch.stack(outputs).to(qkv)


def _of_length_one(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + LEAST)


def _requests(x: Tensor, cache: StateCache, batch: Batch) -> Iterator[tuple[Tensor, Tensor, dict[int, int]]]:
    """The rows of each request, the state before the first, and the slots of those after some of them."""
    for span, (first, last) in zip(batch.spans, pairwise(batch.offsets), strict=True):
        slot = span.state
        before = torch.zeros_like(cache.values[0]) if slot is None else cache.values[slot].clone()
        yield x[first:last], before, span.new_states
