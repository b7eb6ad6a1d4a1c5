"""Attention of many sequences that each go on by one token: in Triton on a GPU, in PyTorch elsewhere."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # PyTorch's CPU build comes without it
    triton = None

TILE = 64  # keys that are read at a time
ROWS = 16  # of a product, the fewest that Triton multiplies


def in_torch(q: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """q: [n, heads, dim]; keys, values: [n, kv_heads, most, dim]; row i sees its positions 0 to
    positions[i]: [n, heads, dim]."""
    heads, kv_heads = q.shape[1], keys.shape[1]
    seen = torch.arange(keys.shape[2], device=q.device) <= positions[:, None, None, None]
    grouped = q.view(len(q), kv_heads, heads // kv_heads, -1)
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen).flatten(1, 2)


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _attend(  # type: ignore[no-untyped-def]
        q_at, k_at, v_at, position_at, out_at, most, scale,
        heads: tl.constexpr, shared: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr, rows: tl.constexpr,
    ):  # fmt: skip
        """A program a row and K/V head, whose query heads share the loads of its keys."""
        row, head = tl.program_id(0), tl.program_id(1)
        position = tl.load(position_at + row)
        query, number = tl.arange(0, rows), tl.arange(0, dim)
        at = (row * heads + head * shared + query)[:, None] * dim + number[None, :]
        real = (query < shared)[:, None]
        q = tl.load(q_at + at, mask=real, other=0.0)
        begin = (row.to(tl.int64) * (heads // shared) + head) * most * dim
        best = tl.full([rows], -1e30, tl.float32)
        total = tl.zeros([rows], tl.float32)
        sums = tl.zeros([rows, dim], tl.float32)
        for first in range(0, position + 1, tile):
            place = first + tl.arange(0, tile)
            seen = place <= position
            at_tile = begin + place[:, None] * dim + number[None, :]
            k = tl.load(k_at + at_tile, mask=seen[:, None], other=0.0)
            scores = tl.where(seen[None, :], tl.dot(q, tl.trans(k)) * scale, -1e30)
            top = tl.maximum(best, tl.max(scores, 1))
            weights, shrunk = tl.exp(scores - top[:, None]), tl.exp(best - top)
            v = tl.load(v_at + at_tile, mask=seen[:, None], other=0.0)
            sums = sums * shrunk[:, None] + tl.dot(weights.to(v.dtype), v)
            total, best = total * shrunk + tl.sum(weights, 1), top
        tl.store(out_at + at, (sums / total[:, None]).to(q.dtype), mask=real)


def in_triton(q: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """The same."""
    q = q.contiguous()
    out, (count, heads, dim), kv_heads = torch.empty_like(q), q.shape, keys.shape[1]
    kernel: Any = _attend
    kernel[(count, kv_heads)](
        q, keys, values, positions, out, keys.shape[2], dim**-0.5,
        heads, heads // kv_heads, dim, TILE, ROWS,
    )  # fmt: skip
    return out
