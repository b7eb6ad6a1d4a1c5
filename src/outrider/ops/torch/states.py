"""Layers that keep a state, in plain PyTorch: request by request, and row after row. A row of a tree begins
with the state after the row that it follows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import StateCache
from outrider.ops.shapes import ConvShape, DeltaShape
from outrider.ops.span import Span
from outrider.ops.torch.batch import Batch

LEAST = 1e-6  # of the squared length of a key or a query


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: StateCache, shape: ConvShape, batch: Batch
) -> Tensor:
    outputs = []
    for rows, before, span in _requests(x.float(), cache, batch):
        inputs, seen = torch.cat([before, rows]), _windows(span, shape.kernel)
        y = torch.zeros_like(rows) if bias is None else bias.expand_as(rows)
        for tap in range(shape.kernel):
            y = y + inputs[seen[:, tap]] * weight[:, tap]
        for row, slot in span.new_states.items():
            cache.values[slot] = inputs[seen[row, 1:]]
        outputs.append(F.silu(y) if shape.silu else y)
    return torch.cat(outputs).to(x)


def _windows(span: Span, kernel: int) -> Tensor:
    """What each row sees of `kernel - 1` inputs before the span and those of its rows behind them:
    int64 [rows, kernel]."""
    windows = list[list[int]]()
    for row, before in enumerate(span.follows):
        seen = windows[before][1:] if before >= 0 else range(kernel - 1)
        windows.append([*seen, kernel - 1 + row])
    return torch.tensor(windows)


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
    for rows, state, span in _requests(qkv.float(), cache, batch):
        slots = span.new_states
        q, k, v = torch.tensor_split(rows, (keys, 2 * keys), dim=1)
        q, k = (_of_length_one(one.reshape(len(one), shape.key_heads, -1)[:, of]) for one in (q, k))
        v = v.reshape(len(v), shape.value_heads, -1)
        for row, before in enumerate(span.follows):
            if before != row - 1:
                state = cache.values[slots[before]]
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


def _requests(x: Tensor, cache: StateCache, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Span]]:
    """The rows of each request, the state before the first, and the span."""
    for span, (first, last) in zip(batch.spans, pairwise(batch.offsets), strict=True):
        slot = span.state
        before = torch.zeros_like(cache.values[0]) if slot is None else cache.values[slot].clone()
        yield x[first:last], before, span
