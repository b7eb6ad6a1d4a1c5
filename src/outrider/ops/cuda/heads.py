"""What stands between the product of q, k and v and attention: norms, rope, and the store to the cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.cuda.device import launch
from outrider.ops.cuda.layout import GpuBatch
from outrider.ops.shapes import AttentionShape, HeadVectors


@triton.jit
def _head(x, width, norm, first, head, count, dim, n, eps, kind: tl.constexpr, all_heads: tl.constexpr,
          padded: tl.constexpr):  # fmt: skip
    """Numbers n of a head, normed by itself (kind 1), with all others (2), or not (0). x: of the row."""
    start = first + head * dim
    value = tl.load(x + start + n, mask=n < dim, other=0.0)
    if kind == 0:
        return value
    if kind == 1:
        each = tl.arange(0, padded)
        whole = tl.load(x + start + each, mask=each < dim, other=0.0)
        mean, weight = tl.sum(whole * whole, 0) / dim, norm
    else:
        each = tl.arange(0, all_heads)
        whole = tl.load(x + first + each, mask=each < count * dim, other=0.0)
        mean, weight = tl.sum(whole * whole, 0) / (count * dim), norm + head * dim
    return tl.div_rn(value, tl.sqrt_rn(mean + eps)) * tl.load(weight + n, mask=n < dim, other=0.0)


@triton.jit
def _turned(x, width, norm, first, head, count, dim, n, eps, inv_freq, pairs, position, rope_factor,
            kind: tl.constexpr, all_heads: tl.constexpr, padded: tl.constexpr,
            turns: tl.constexpr):  # fmt: skip
    """The head, normed, and turned by its position: pairs of neighbours ('near'), of halves ('far'), none."""
    value = _head(x, width, norm, first, head, count, dim, n, eps, kind, all_heads, padded)
    if turns == "none":
        return value
    turning = n < 2 * pairs
    if turns == "near":
        other, number, lower = n ^ 1, n // 2, n % 2 == 0
    else:
        lower = n < pairs
        other, number = tl.where(lower, n + pairs, n - pairs), tl.where(lower, n, n - pairs)
    partner = _head(x, width, norm, first, head, count, dim, tl.where(turning, other, n), eps, kind,
                    all_heads, padded)  # fmt: skip
    angle = position.to(tl.float32) * tl.load(inv_freq + number, mask=turning, other=0.0)
    cos, sin = tl.cos(angle) * rope_factor, tl.sin(angle) * rope_factor
    return tl.where(turning, tl.fma(value, cos, tl.where(lower, -partner, partner) * sin), value)


@triton.jit
def _place(qkv, q_out, keys, values, slots, positions, q_norm, k_norm, inv_freq, width, pairs, ahead,
           rope_factor, eps, beta, length, heads: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr,
           padded: tl.constexpr, all_q: tl.constexpr, all_k: tl.constexpr, q_kind: tl.constexpr,
           k_kind: tl.constexpr, turns: tl.constexpr, grows: tl.constexpr, same: tl.constexpr,
           values_normed: tl.constexpr):  # fmt: skip
    """A program a row and head: first those of q, then those of k with their v."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x, n = qkv + row * width, tl.arange(0, padded)
    position = tl.load(positions + row)
    if head < heads:
        q = _turned(x, width, q_norm, 0, head, heads, dim, n, eps, inv_freq, pairs, position + ahead,
                    rope_factor, q_kind, all_q, padded, turns)  # fmt: skip
        if grows:
            q = q * (1.0 + beta * tl.log((tl.maximum(position, 0) // length + 1).to(tl.float32)))
        tl.store(q_out + (row * heads + head) * dim + n, q.to(q_out.dtype.element_ty), mask=n < dim)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            own = head - heads
            to = (slot * kv_heads + own) * dim + n
            k = _turned(x, width, k_norm, heads * dim, own, kv_heads, dim, n, eps, inv_freq, pairs,
                        position + ahead, rope_factor, k_kind, all_k, padded, turns)  # fmt: skip
            tl.store(keys + to, k.to(keys.dtype.element_ty), mask=n < dim)
            first = (heads if same else heads + kv_heads) * dim + own * dim
            v = tl.load(x + first + n, mask=n < dim, other=0.0)
            if values_normed:
                v = tl.div_rn(v, tl.sqrt_rn(tl.sum(v * v, 0) / dim + eps))
            tl.store(values + to, v.to(values.dtype.element_ty), mask=n < dim)


def place_heads(
    qkv: Tensor,
    batch: GpuBatch,
    cache: LayerCache,
    shape: AttentionShape,
    vectors: HeadVectors,
    inv_freq: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """q [rows, heads, head_dim] in `dtype`, ready to attend; k and v go to the cache.

    qkv: float32 [rows, heads of q, and of k and v as far as there are such]; inv_freq: of the rope, on the
    device.
    """
    s, rope, growth = shape, shape.rope, shape.temperature
    q = qkv.new_empty((len(qkv), s.heads, s.head_dim), dtype=dtype)
    turns = "none" if rope is None else "near" if rope.interleaved else "far"
    launch(_place, (len(qkv), s.heads + (s.kv_heads if s.stores else 0)),
        qkv, q, cache.keys, cache.values, batch.slots[cache.group], batch.positions,
        q if vectors.q_norm is None else vectors.q_norm, q if vectors.k_norm is None else vectors.k_norm,
        inv_freq, qkv.shape[1], len(inv_freq), rope.ahead if rope else 0, rope.factor if rope else 1.0,
        s.norm_eps, growth.beta if growth else 0.0, growth.length if growth else 1,
        s.heads, s.kv_heads, s.head_dim, triton.next_power_of_2(s.head_dim),
        triton.next_power_of_2(s.heads * s.head_dim), triton.next_power_of_2(s.kv_heads * s.head_dim),
        _kind(vectors.q_norm, s.head_dim, s.heads), _kind(vectors.k_norm, s.head_dim, s.kv_heads), turns,
        growth is not None, s.kv == "keys", s.values_normed,
    )  # fmt: skip
    return q


def _kind(norm: Tensor | None, dim: int, heads: int) -> int:
    """0: no norm, 1: of each head by itself, 2: of all together."""
    return 0 if norm is None else 1 if len(norm) == dim or heads == 1 else 2
