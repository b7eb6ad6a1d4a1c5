"""Attention over a paged cache: keys in fixed tiles of the position, splits of them merged in order.

A program has a piece, up to `PIECE` rows of a request that follow each other, for one K/V head and one split
of the positions. A row of a tree is a piece of its own and reads its path in order of position, in the same
tiles as a chain's. So a row's sums have one order, whatever rows are computed beside it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.cuda.device import INTERPRETED, launch
from outrider.ops.cuda.layout import PIECE, SPLIT, GpuBatch, run_rows
from outrider.ops.cuda.linear import TRITON_TYPES
from outrider.ops.shapes import AttentionShape

KEYS = 64  # of a tile; a split has a whole number of them
LEAST = -1e30  # in place of minus infinity, whose differences are no numbers


@triton.jit
def _attend(q, keys, values, best_out, total_out, sums_out, positions, pieces, paths, tables, width,
            from_row, scale, soft_cap, window, heads: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr,
            padded: tl.constexpr, share: tl.constexpr, together: tl.constexpr, rows: tl.constexpr,
            block_size: tl.constexpr, tile: tl.constexpr, split_size: tl.constexpr, capped: tl.constexpr,
            windowed: tl.constexpr, operand: tl.constexpr, least: tl.constexpr):  # fmt: skip
    """A product has `rows` rows of `together` query heads each, of which `share` read this K/V head."""
    piece, head, split = pieces + tl.program_id(0) * 5, tl.program_id(1), tl.program_id(2)
    start, count = tl.load(piece), tl.load(piece + 1)
    request, branch, path = tl.load(piece + 2), tl.load(piece + 3), tl.load(piece + 4)
    if count <= 0:
        return
    last = tl.load(positions + start + count - 1)  # rows of a piece ascend
    begin, end = split * split_size, min(split * split_size + split_size, last + 1)
    if windowed:
        seen = tl.maximum(tl.load(positions + start) - window + 1, 0)
        begin = tl.maximum(begin, seen // tile * tile)
    if begin >= end:
        return
    m, n, key = tl.arange(0, rows * together), tl.arange(0, padded), tl.arange(0, tile)
    number, query = m // together, m % together
    real = (number < count) & (query < share)
    row = (start + number).to(tl.int64)
    position = tl.load(positions + row, mask=number < count, other=0)
    of_head = row * heads + head * share + query
    read = tl.load(
        q + of_head[:, None] * dim + n[None, :], mask=real[:, None] & (n < dim)[None, :], other=0.0
    )
    read = read.to(operand)
    best = tl.full([rows * together], least, tl.float32)
    total = tl.zeros([rows * together], tl.float32)
    sums = tl.zeros([rows * together, padded], tl.float32)
    for first in range(begin, end, tile):
        at = first + key
        on_path = (at >= branch) & (at < end)
        place = tl.where(on_path, tl.load(paths + path + at - branch, mask=on_path, other=0), at)
        block = tl.load(tables + request * width + place // block_size, mask=at < end, other=-1)
        there = block >= 0
        slot = block.to(tl.int64) * block_size + place % block_size
        inside = there[:, None] & (n < dim)[None, :]
        to = (slot * kv_heads + head)[:, None] * dim + n[None, :]
        k = tl.load(keys + to, mask=inside, other=0.0).to(operand)
        zero = tl.zeros([rows * together, tile], tl.float32)
        scores = tl.dot(read, tl.trans(k), zero, input_precision="ieee") * scale
        if capped:
            scores = soft_cap * (1.0 - 2.0 / (tl.exp(2.0 * scores / soft_cap) + 1.0))
        visible = there[None, :] & (at[None, :] <= position[:, None])
        if windowed:
            visible = visible & (at[None, :] > position[:, None] - window)
        scores = tl.where(visible, scores, least)
        top = tl.maximum(best, tl.max(scores, 1))
        weights = tl.where(visible, tl.exp(scores - top[:, None]), 0.0)
        shrunk = tl.exp(best - top)
        v = tl.load(values + to, mask=inside, other=0.0)
        weights_read = weights.to(v.dtype).to(operand)
        sums = tl.dot(weights_read, v.to(operand), sums * shrunk[:, None], input_precision="ieee")
        total = tl.fma(total, shrunk, tl.sum(weights, 1))
        best = top
    part = (of_head - from_row * heads) * tl.num_programs(2) + split
    tl.store(best_out + part, best, mask=real)
    tl.store(total_out + part, total, mask=real)
    to = part[:, None] * padded + n[None, :]
    tl.store(sums_out + to, sums, mask=real[:, None])


@triton.jit
def _merge(best_in, total_in, sums_in, out, positions, sinks, from_row, window, splits, heads: tl.constexpr,
           dim: tl.constexpr, padded: tl.constexpr, split_size: tl.constexpr, windowed: tl.constexpr,
           has_sinks: tl.constexpr, least: tl.constexpr):  # fmt: skip
    """The splits that a row sees, in their order, and last its sink. A row that pads has none, and zeros."""
    kept, head, n = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, padded)
    row = from_row + kept
    position = tl.load(positions + row)
    first = 0
    if windowed:
        first = tl.maximum(position - window + 1, 0) // split_size
    best = tl.full([1], least, tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([padded], tl.float32)
    end = (position + split_size) // split_size
    for split in range(first, end):
        part = (kept * heads + head) * splits + split
        other = tl.load(best_in + part)
        top = tl.maximum(best, other)
        shrunk, grown = tl.exp(best - top), tl.exp(other - top)
        total = tl.fma(total, shrunk, tl.load(total_in + part) * grown)
        sums = tl.fma(sums, tl.broadcast_to(shrunk, [padded]), tl.load(sums_in + part * padded + n) * grown)
        best = top
    if has_sinks:
        sink = tl.load(sinks + head)
        top = tl.maximum(best, sink)
        shrunk = tl.exp(best - top)
        sums = sums * shrunk
        total = tl.fma(total, shrunk, tl.exp(sink - top))
    y = tl.div_rn(sums, tl.broadcast_to(tl.where(total > 0.0, total, 1.0), [padded]))
    tl.store(out + (row * heads + head) * dim + n, y.to(out.dtype.element_ty), mask=n < dim)


def attend(
    q: Tensor, batch: GpuBatch, cache: LayerCache, shape: AttentionShape, sinks: Tensor | None
) -> Tensor:
    """What the rows see: q [rows, heads, head_dim] -> [rows, heads * head_dim], in the type of q."""
    s, splits = shape, batch.splits
    padded, share = max(16, triton.next_power_of_2(s.head_dim)), s.heads // s.kv_heads
    together = triton.next_power_of_2(share)
    window, windowed = s.window or 0, s.window is not None
    operand = tl.float32 if INTERPRETED else TRITON_TYPES[cache.keys.dtype]
    table = batch.tables[cache.group]
    out, at_once = torch.empty_like(q).view(len(q), -1), run_rows(splits)
    for first, pieces in zip(range(0, len(q), at_once), batch.pieces, strict=True):
        count = min(at_once, len(q) - first)
        best, total = (q.new_empty((count, s.heads, splits), dtype=torch.float32) for _ in range(2))
        sums = q.new_empty((count, s.heads, splits, padded), dtype=torch.float32)
        launch(_attend, (len(pieces), s.kv_heads, splits),
            q, cache.keys, cache.values, best, total, sums, batch.positions, pieces, batch.paths, table,
            table.shape[1], first, s.scale, s.soft_cap or 1.0, window, s.heads, s.kv_heads, s.head_dim,
            padded, share, together, max(PIECE, triton.cdiv(16, together)), batch.block_size, KEYS, SPLIT,
            s.soft_cap is not None, windowed, operand, LEAST,
        )  # fmt: skip
        launch(_merge, (count, s.heads),
            best, total, sums, out, batch.positions, q if sinks is None else sinks, first, window, splits,
            s.heads, s.head_dim, padded, SPLIT, windowed, sinks is not None, LEAST,
        )  # fmt: skip
    return out
