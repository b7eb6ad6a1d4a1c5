"""Layers that keep a state: a convolution, and a delta rule that walks a request's rows in their order.

Every row begins with the state after the row that it follows, and a state is float32 in registers as in its
slot. So it has the same bits whether rows came one at a time, as a draft, or as a path of a tree.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.cache.store import StateCache
from outrider.ops.cuda.device import launch
from outrider.ops.cuda.gates import sigmoid
from outrider.ops.cuda.layout import StateRows
from outrider.ops.shapes import ConvShape, DeltaShape

CHANNELS = 256  # of a program
VALUES = 32  # of a head, that a program walks the rows with
LEAST = tl.constexpr(1e-6)  # of the squared length of a key or a query


@triton.jit
def _convolve(x, weight, bias, states, follows, begins, ends, out, channels, taps: tl.constexpr,
              has_bias: tl.constexpr, silu: tl.constexpr, tile: tl.constexpr):  # fmt: skip
    """A program a row and tile of channels. From the last tap to the first it goes back over the rows that
    the row follows, and then into the state, whose last input is that of the row before the request."""
    row, n = tl.program_id(0), tl.program_id(1) * tile + tl.arange(0, tile)
    real = n < channels
    begin, end = tl.load(begins + row).to(tl.int64), tl.load(ends + row).to(tl.int64)
    y = tl.zeros([tile], tl.float32)
    if has_bias:
        y = tl.load(bias + n, mask=real, other=0.0)
    at = row
    for back in range(taps):
        tap = taps - 1 - back
        there = tl.where(at >= 0, channels, 0)
        of_row = tl.load(x + tl.maximum(at, 0).to(tl.int64) * channels + n, mask=n < there, other=0.0)
        there = tl.where((at < 0) & (begin >= 0), channels, 0)
        kept = (begin * (taps - 1) + taps - 1 + at) * channels + n
        of_state = tl.load(states + kept, mask=n < there, other=0.0)
        value = tl.where(at >= 0, of_row.to(tl.float32), of_state)
        y = tl.fma(value, tl.load(weight + n * taps + tap, mask=real, other=0.0), y)
        if tap > 0:
            to = (end * (taps - 1) + tap - 1) * channels + n
            tl.store(states + to, value, mask=n < tl.where(end >= 0, channels, 0))
        at = tl.where(at >= 0, tl.load(follows + tl.maximum(at, 0)), at - 1)
    if silu:
        y = y * sigmoid(y)
    tl.store(out + row.to(tl.int64) * channels + n, y.to(out.dtype.element_ty), mask=real)


@triton.jit
def _unit(x, k, dim, length):
    """x as a vector of this length."""
    value = tl.load(x + k, mask=k < dim, other=0.0).to(tl.float32)
    squares = tl.broadcast_to(tl.sum(value * value, 0) + LEAST, value.shape)
    return tl.div_rn(value * length, tl.sqrt_rn(squares))


@triton.jit
def softplus(x):
    """The logarithm of 1 + exp(x). What is lost in 1 + power is made up for (Kahan); a large x is its own."""
    power = tl.exp(tl.minimum(x, 20.0))
    whole = 1.0 + power
    exact = tl.log(whole) * (power / tl.where(whole == 1.0, 1.0, whole - 1.0))
    return tl.where(x > 20.0, x, tl.where(whole == 1.0, power, exact))


@triton.jit
def _delta(qkv, forget, write, rates, bias, states, follows, begins, ends, walks, out, length,
           key_heads: tl.constexpr, value_heads: tl.constexpr, key_dim: tl.constexpr,
           value_dim: tl.constexpr, tiled: tl.constexpr, padded: tl.constexpr,
           tile: tl.constexpr):  # fmt: skip
    """A program a request, value head and tile of its values: state [key_dim, tile], row after row."""
    request, head = tl.program_id(0), tl.program_id(1)
    k, v = tl.arange(0, padded), tl.program_id(2) * tile + tl.arange(0, tile)
    first, count = tl.load(walks + request * 2), tl.load(walks + request * 2 + 1)
    of = head % key_heads if tiled else head * key_heads // value_heads
    keys: tl.constexpr = key_heads * key_dim
    width: tl.constexpr = 2 * keys + value_heads * value_dim
    place = head.to(tl.int64) * (key_dim * value_dim) + k[:, None] * value_dim + v[None, :]
    size: tl.constexpr = value_heads * key_dim * value_dim
    rate, shift = tl.load(rates + head), tl.load(bias + head)
    state = tl.zeros([padded, tile], tl.float32)
    for row in range(first, first + count):
        before = tl.load(follows + row)
        goes_on = (before >= 0) & (before == row - 1)
        source = tl.where(before >= 0, tl.load(ends + tl.maximum(before, 0)), tl.load(begins + row))
        tl.debug_barrier()  # what some threads of the program have stored is there for the others
        rows_there = tl.where((source >= 0) & (goes_on == 0), key_dim, 0)
        kept = (k < rows_there)[:, None] & (v < value_dim)[None, :]
        other = tl.load(states + source.to(tl.int64) * size + place, mask=kept, other=0.0)
        state = tl.where(goes_on, state, other)
        x = qkv + tl.cast(row, tl.int64) * width
        q, key = _unit(x + of * key_dim, k, key_dim, length), _unit(x + keys + of * key_dim, k, key_dim, 1.0)
        value = tl.load(x + 2 * keys + head * value_dim + v, mask=v < value_dim, other=0.0).to(tl.float32)
        soft = softplus(tl.load(forget + row * value_heads + head).to(tl.float32) + shift)
        state = state * tl.exp(rate * soft)
        found = tl.sum(state * key[:, None], 0)
        change = (value - found) * sigmoid(tl.load(write + row * value_heads + head).to(tl.float32))
        wide = tl.broadcast_to(key[:, None], [padded, tile])
        state = tl.fma(wide, tl.broadcast_to(change[None, :], [padded, tile]), state)
        y = tl.sum(state * q[:, None], 0)
        tl.store(out + (row * value_heads + head).to(tl.int64) * value_dim + v, y.to(out.dtype.element_ty),
                 mask=v < value_dim)  # fmt: skip
        end = tl.load(ends + row)
        kept = (k < tl.where(end >= 0, key_dim, 0))[:, None] & (v < value_dim)[None, :]
        tl.store(states + end.to(tl.int64) * size + place, state, mask=kept)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: StateCache, shape: ConvShape, rows: StateRows
) -> Tensor:
    """See `outrider.ops.base.Ops.convolve`: [rows, channels], in the type of x."""
    out = torch.empty_like(x)
    tile = min(CHANNELS, triton.next_power_of_2(shape.channels))
    launch(_convolve, (len(x), triton.cdiv(shape.channels, tile)),
        x, weight, weight if bias is None else bias, cache.values, rows.follows, rows.begins, rows.ends, out,
        shape.channels, shape.kernel, bias is not None, shape.silu, tile,
    )  # fmt: skip
    return out


def delta(
    qkv: Tensor,
    forget: Tensor,
    write: Tensor,
    rates: Tensor,
    bias: Tensor,
    cache: StateCache,
    shape: DeltaShape,
    rows: StateRows,
) -> Tensor:
    """See `outrider.ops.base.Ops.delta`: [rows, value_heads * value_dim], in the type of qkv."""
    s = shape
    out = qkv.new_empty((len(qkv), s.value_heads * s.value_dim))
    tile = min(VALUES, triton.next_power_of_2(s.value_dim))
    launch(_delta, (len(rows.walks), s.value_heads, triton.cdiv(s.value_dim, tile)),
        qkv, forget, write, rates, bias, cache.values, rows.follows, rows.begins, rows.ends, rows.walks, out,
        s.key_dim**-0.5, s.key_heads, s.value_heads, s.key_dim, s.value_dim, s.tiled,
        triton.next_power_of_2(s.key_dim), tile,
    )  # fmt: skip
    return out
