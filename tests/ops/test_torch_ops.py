"""PyTorch operations: rows that do not depend on their batch, and attention against its definition."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.base import AttentionShape, CacheShape, Rope
from outrider.ops.batch import Batch, Span
from outrider.ops.torch import TorchBackend, TorchOps
from outrider.ops.torch.linear import pack_linear

CPU = torch.device("cpu")
ROWS = 64
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest value of a row


pytestmark = pytest.mark.usefixtures("one_thread")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest error of a row, of the largest value of that row."""
    error = (actual.double() - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)
    return float(error.max())


# --- linear -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "outer", "bias", "threads"),
    [(48, 96, False, 1), (33, 7, True, 1), (96, 275, True, 2), (576, 960, False, 2), (1536, 576, False, 1)],
)
def test_a_float32_row_is_bit_identical(inner: int, outer: int, bias: bool, threads: int) -> None:
    """Not so in bfloat16 where oneDNN computes with AMX, whose blocking follows the number of rows."""
    torch.set_num_threads(threads)
    torch.manual_seed(inner)
    linear = pack_linear(torch.randn(outer, inner), torch.randn(outer) if bias else None)
    x = torch.randn(ROWS, inner)
    whole = linear(x)
    draw = random.Random(outer)
    for rows in range(1, ROWS + 1):
        start = draw.randint(0, ROWS - rows)
        assert torch.equal(linear(x[start : start + rows]), whole[start : start + rows]), rows
        order = torch.tensor(draw.sample(range(ROWS), rows))
        assert torch.equal(linear(x[order]), whole[order]), rows
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [0, 1, 2, 9, 200])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_against_float64(dtype: torch.dtype, rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    w, b, x = (torch.randn(size).to(dtype) for size in ((40, 24), (40,), (rows, 24)))
    y = pack_linear(w, b if bias else None)(x)
    assert y.shape == (rows, 40)
    assert y.dtype == dtype
    if rows:
        expected = x.double() @ w.double().T + (b.double() if bias else 0)
        assert relative_error(y, expected) < TOLERANCE.get(dtype, 5e-3)


# --- attention ----------------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> tuple[AttentionShape, int, list[tuple[int, int]]]:
    """Heads, block size, and for each request (tokens in the cache, rows to compute)."""
    kv_heads = draw(st.integers(1, 3))
    shape = AttentionShape(
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((2, 8, 12))),
        sliding_window=draw(st.none() | st.integers(1, 30)),
    )
    rows = st.integers(1, 6) | st.integers(30, 50)  # those to be padded, and those to stand alone
    requests = st.lists(st.tuples(st.integers(0, 60), rows), min_size=1, max_size=5)
    return shape, draw(st.integers(1, 9)), draw(requests)


def scattered_spans(requests: list[tuple[int, int]], block_size: int, seed: int) -> tuple[list[Span], int]:
    """Spans whose blocks lie anywhere in a cache of twice the size they need."""
    needed = [-(-(start + rows) // block_size) for start, rows in requests]
    blocks = random.Random(seed).sample(range(2 * sum(needed)), sum(needed))
    spans = [
        Span([0] * rows, start, [blocks.pop() for _ in range(count)], rows)
        for (start, rows), count in zip(requests, needed, strict=True)
    ]
    return spans, 2 * sum(needed)


def empty_cache(shape: AttentionShape, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
    """Nothing but NaN, save where the store has zeros: reading what nobody wrote shows."""
    (layer,) = TorchBackend(CPU, dtype).new_cache(CacheShape(1, num_blocks, block_size), shape)
    for data in (layer.keys, layer.values):
        assert not data[:block_size].any()
        data[block_size:] = torch.nan
    return layer


def attention_by_definition(q: Tensor, k: Tensor, v: Tensor, positions: range, window: int | None) -> Tensor:
    """float64; q: [rows, heads, head_dim]; k, v: [length, kv_heads, head_dim]; one row at a time."""
    share = q.shape[1] // k.shape[1]
    out = torch.empty(q.shape, dtype=torch.float64)
    for row, position in enumerate(positions):
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(q.shape[1]):
            keys = k[first : position + 1, head // share].double()
            values = v[first : position + 1, head // share].double()
            scores = keys @ q[row, head].double() / math.sqrt(q.shape[2])
            out[row, head] = torch.softmax(scores, dim=0) @ values
    return out.flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 2**32 - 1))
def test_attention_of_ragged_batches(
    dtype: torch.dtype, layout: tuple[AttentionShape, int, list[tuple[int, int]]], seed: int
) -> None:
    shape, block_size, requests = layout
    spans, num_blocks = scattered_spans(requests, block_size, seed)
    generator = torch.Generator().manual_seed(seed)
    layer = empty_cache(shape, num_blocks, block_size, dtype)
    batch = Batch.of(spans, block_size, CPU)
    features = shape.heads + 2 * shape.kv_heads
    qkv = torch.randn((batch.rows, features * shape.head_dim), generator=generator).to(dtype)
    for span, context in zip(spans, batch.contexts, strict=True):
        past = (span.start, shape.kv_heads, shape.head_dim)
        layer.keys[context[: span.start]] = torch.randn(past, generator=generator).to(dtype)
        layer.values[context[: span.start]] = torch.randn(past, generator=generator).to(dtype)

    still = Rope(torch.zeros(shape.head_dim // 2), 1.0)  # no rotation
    ops = TorchOps.over(batch, shape, still, dtype)
    q = ops.rotate_and_store(qkv, layer)
    out = ops.attend(q, layer)

    assert torch.equal(q.flatten(1), qkv[:, : shape.heads * shape.head_dim])
    for span, context, start, end in zip(
        spans, batch.contexts, batch.offsets, batch.offsets[1:], strict=False
    ):
        positions = range(span.start, span.end)
        k, v = layer.keys[context], layer.values[context]
        expected = attention_by_definition(q[start:end], k, v, positions, shape.sliding_window)
        error = (out[start:end].double() - expected).abs().max() / v.double().abs().max()
        assert float(error) < TOLERANCE[dtype]  # of the values that are averaged: an average may be near zero


# --- the rest -----------------------------------------------------------------------------------------


def test_rotation_and_where_k_and_v_go() -> None:
    shape, block_size = AttentionShape(heads=4, kv_heads=2, head_dim=6, sliding_window=None), 4
    spans = [Span([0] * 3, 5, [4, 2], 3), Span([0], 0, [1], 1)]
    layer = empty_cache(shape, 6, block_size, torch.float32)
    torch.manual_seed(0)
    qkv, inv_freq = torch.randn(4, 8 * 6), torch.tensor([1.0, 0.1, 0.01])
    ops = TorchOps.over(Batch.of(spans, block_size, CPU), shape, Rope(inv_freq, 1.5), torch.float32)
    q = ops.rotate_and_store(qkv, layer)

    def rotated(row: int, head: int, position: int) -> Tensor:
        """Pair i of a head is a complex number, turned by position * inv_freq[i]."""
        low, high = qkv[row].view(8, 2, 3)[head].double()
        turned = torch.complex(low, high) * torch.polar(torch.full((3,), 1.5), position * inv_freq)
        return torch.cat([turned.real, turned.imag])

    places = {0: (5, 2 * 4 + 1), 1: (6, 2 * 4 + 2), 2: (7, 2 * 4 + 3), 3: (0, 1 * 4)}  # row: position, slot
    for row, (position, slot) in places.items():
        for head in range(4):
            assert torch.allclose(q[row, head].double(), rotated(row, head, position), atol=1e-6)
        for head in range(2):
            key = layer.keys[slot, head].double()
            assert torch.allclose(key, rotated(row, 4 + head, position), atol=1e-6)
            assert torch.equal(layer.values[slot, head], qkv[row].view(8, 6)[6 + head])
    written = {slot for _, slot in places.values()} | set(range(block_size))
    assert set(layer.keys[:, 0, 0].isnan().logical_not().nonzero().flatten().tolist()) == written


def test_norm_gate_and_embedding() -> None:
    torch.manual_seed(0)
    shape = AttentionShape(heads=1, kv_heads=1, head_dim=2, sliding_window=None)
    batch = Batch.of([Span([3, 0, 3], 0, [0], 2)], 4, CPU)
    ops = TorchOps.over(batch, shape, Rope(torch.zeros(1), 1.0), torch.float32)
    x, weight = torch.randn(5, 4), torch.randn(4)
    gate, up = torch.randn(6, 4), torch.randn(6, 4)
    norm = x.double() / (x.double().pow(2).mean(dim=1, keepdim=True) + 0.1).sqrt() * weight.double()
    assert relative_error(ops.rms_norm(x, weight, 0.1), norm) < 1e-6
    left, right = (x.double() @ w.double().T for w in (gate, up))
    gated = ops.gated(x, pack_linear(gate, None), pack_linear(up, None))
    assert relative_error(gated, left * torch.sigmoid(left) * right) < 1e-6
    added = ops.linear(x, pack_linear(gate, None), residual=torch.ones(5, 6))
    assert relative_error(added, left + 1) < 1e-6
    assert torch.equal(ops.embed(x), x[[3, 0, 3]])
    assert torch.equal(ops.select_logit_rows(x[:3]), x[1:3])


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 7), st.integers(0, 7)), min_size=1, max_size=4
    ),
    block_size=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_batch_of_spans(sizes: list[tuple[int, int, int]], block_size: int) -> None:
    """Row by row, what `Batch.of` lays out."""
    spans: list[Span] = []
    first_block = 0
    for start, length, logits in sizes:
        count = -(-(start + length) // block_size)
        blocks = list(range(first_block, first_block + count))[::-1]
        spans.append(Span(list(range(length)), start, blocks, min(logits, length)))
        first_block += count
    batch = Batch.of(spans, block_size, CPU)
    slots = [
        [span.blocks[p // block_size] * block_size + p % block_size for p in range(span.end)]
        for span in spans
    ]
    rows = [(i, p) for i, span in enumerate(spans) for p in range(span.start, span.end)]
    assert batch.rows == len(rows)
    assert [context.tolist() for context in batch.contexts] == slots
    assert batch.positions.tolist() == [p for _, p in rows]
    assert batch.slots.tolist() == [slots[i][p] for i, p in rows]
    assert batch.tokens.tolist() == [p - spans[i].start for i, p in rows]
    wanted = [n for n, (i, p) in enumerate(rows) if p >= spans[i].end - spans[i].logit_rows]
    assert batch.logit_rows.tolist() == wanted
