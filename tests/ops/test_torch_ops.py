"""PyTorch operations: rows that do not depend on their batch, and attention against its definition."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outrider.cache.groups import blocks_behind
from outrider.cache.store import LayerCache
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.ops.shapes import Activation, AttentionShape, HeadVectors, Rope, Routing, Scoring
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend, TorchOps
from outrider.ops.torch.batch import Batch
from outrider.ops.torch.linear import _onednn_linear, pack_linear

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


def test_onednn_meets_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps a kernel for each, and experts of a mixture get any number of rows."""
    met: set[int] = set()

    class Counted:
        def _linear_pointwise(self, x: Tensor, *_: object) -> Tensor:
            met.add(len(x))
            return x

    monkeypatch.setattr(torch.ops, "mkldnn", Counted())
    for rows in range(1, 513):
        assert len(_onednn_linear(torch.empty(0), None, torch.empty(rows, 3))) == rows
    assert len(met) < 60
    assert met >= {*range(2, 17), 512}


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


# --- experts ------------------------------------------------------------------------------------------


def by_definition(
    x: Tensor,
    scores: Tensor,
    stacks: tuple[Tensor, Tensor, Tensor],
    routing: Routing,
    clamped: bool,
    bias: Tensor,
) -> Tensor:
    """Row by row, in float64, and experts in the order of their rank."""
    gates, ups, downs = (stack.double() for stack in stacks)
    rows = []
    for row, score in zip(x.double(), scores.double(), strict=True):
        softmax = routing.scoring == "softmax"
        weights = (score - score.logsumexp(0)).exp() if softmax else torch.sigmoid(score)
        order = (score if softmax else weights) + bias.double()
        chosen = sorted(range(routing.count), key=lambda e: (-float(order[e]), e))[: routing.chosen]
        if routing.normalised:
            weights = weights / weights[chosen].sum()
        total = torch.zeros(downs.shape[1], dtype=torch.float64)
        for expert in chosen:
            gate, up = gates[expert] @ row, ups[expert] @ row
            if clamped:
                gate, up = gate.clamp(max=7), up.clamp(-7, 7) + 1
            opened = gate * torch.sigmoid(gate * (1.702 if clamped else 1))
            total += routing.factor * weights[expert] * (downs[expert] @ (opened * up))
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(
    ("activation", "scoring", "biased"),
    [("silu", "softmax", False), ("swiglu_clamped", "softmax", False), ("silu", "sigmoid", True)],
)
def test_experts_against_float64(
    normalised: bool, activation: Activation, scoring: Scoring, biased: bool
) -> None:
    torch.manual_seed(1)
    routing = Routing(6, 3, normalised, scoring, factor=2.0 if biased else 1.0)
    backend, bias = TorchBackend("cpu", "float32"), torch.randn(6) * biased
    stacks = torch.randn(6, 24, 16) * 2, torch.randn(6, 24, 16) * 2, torch.randn(6, 16, 24)
    x, scores, residual = torch.randn(20, 16), torch.randn(20, 6), torch.randn(20, 16)
    scores[::3] = scores[::3].round()  # many are equal
    gates, ups, downs = (
        backend.stack([Weight(FORMATS["F32"], one.numpy().view(np.uint8), one.shape[1]) for one in stack])
        for stack in stacks
    )
    ops = TorchOps(Batch.of([Span([0], 0, ([0],), 1)], 8, CPU), torch.float32)

    def run(rows: slice) -> Tensor:
        given = x[rows], scores[rows]
        return ops.experts(*given, gates, ups, downs, routing, activation, residual[rows], 0.5, bias)

    whole = run(slice(20))
    expected = residual + 0.5 * by_definition(x, scores, stacks, routing, activation != "silu", bias)
    assert relative_error(whole, expected) < 1e-5
    alone = torch.cat([run(slice(row, row + 1)) for row in range(20)])
    assert relative_error(alone, expected) < 1e-5


# --- attention ----------------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> tuple[AttentionShape, int, list[tuple[int, int]]]:
    """Heads, block size, and for each request (tokens in the cache, rows to compute)."""
    kv_heads = draw(st.integers(1, 3))
    shape = AttentionShape(
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((2, 8, 12))),
        scale=draw(st.sampled_from((0.1, 0.5))),
        window=draw(st.none() | st.integers(1, 30)),
        soft_cap=draw(st.none() | st.just(2.0)),
    )
    rows = st.integers(1, 6) | st.integers(30, 50)  # those to be padded, and those to stand alone
    requests = st.lists(st.tuples(st.integers(0, 60), rows), min_size=1, max_size=5)
    return shape, draw(st.integers(1, 9)), draw(requests)


def scattered_spans(requests: list[tuple[int, int]], block_size: int, seed: int) -> tuple[list[Span], int]:
    """Spans whose blocks lie anywhere in a cache of twice the size they need."""
    needed = [-(-(start + rows) // block_size) for start, rows in requests]
    blocks = random.Random(seed).sample(range(2 * sum(needed)), sum(needed))
    spans = [
        Span([0] * rows, start, ([blocks.pop() for _ in range(count)],), rows)
        for (start, rows), count in zip(requests, needed, strict=True)
    ]
    return spans, 2 * sum(needed)


def without_what_is_behind(span: Span, shape: AttentionShape, block_size: int) -> Span:
    """With -1 in place of the blocks that no row sees."""
    (table,) = span.tables
    behind = blocks_behind(shape.window, span.start, block_size)
    return replace(span, tables=([-1] * behind + list(table[behind:]),))


def empty_cache(shape: AttentionShape, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
    """Nothing but NaN, save where the store has zeros: reading what nobody wrote shows."""
    (layer,) = TorchBackend("cpu", str(dtype).removeprefix("torch.")).new_cache(
        num_blocks, block_size, [shape]
    )
    for data in (layer.keys, layer.values):
        assert not data[:block_size].any()
        data[block_size:] = torch.nan
    return layer


def attention_by_definition(
    q: Tensor, k: Tensor, v: Tensor, positions: range, shape: AttentionShape, sinks: Tensor | None
) -> Tensor:
    """float64; q: [rows, heads, head_dim]; k, v: [length, kv_heads, head_dim]; one row at a time."""
    share = q.shape[1] // k.shape[1]
    out = torch.empty(q.shape, dtype=torch.float64)
    for row, position in enumerate(positions):
        first = 0 if shape.window is None else max(0, position - shape.window + 1)
        for head in range(q.shape[1]):
            keys = k[first : position + 1, head // share].double()
            values = v[first : position + 1, head // share].double()
            scores = keys @ q[row, head].double() * shape.scale
            if shape.soft_cap is not None:
                scores = shape.soft_cap * torch.tanh(scores / shape.soft_cap)
            sink = 0.0 if sinks is None else torch.exp(sinks[head].double())
            out[row, head] = torch.exp(scores) @ values / (torch.exp(scores).sum() + sink)
    return out.flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(layout=layouts(), has_sinks=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_attention_of_ragged_batches(
    dtype: torch.dtype,
    layout: tuple[AttentionShape, int, list[tuple[int, int]]],
    has_sinks: bool,
    seed: int,
) -> None:
    shape, block_size, requests = layout
    spans, num_blocks = scattered_spans(requests, block_size, seed)
    generator = torch.Generator().manual_seed(seed)
    layer = empty_cache(shape, num_blocks, block_size, dtype)
    contexts = Batch.of(spans, block_size, CPU).contexts[0]
    batch = Batch.of([without_what_is_behind(span, shape, block_size) for span in spans], block_size, CPU)
    features = shape.heads + 2 * shape.kv_heads
    qkv = torch.randn((batch.rows, features * shape.head_dim), generator=generator).to(dtype)
    for span, context in zip(spans, contexts, strict=True):
        past = (span.start, shape.kv_heads, shape.head_dim)
        layer.keys[context[: span.start]] = torch.randn(past, generator=generator).to(dtype)
        layer.values[context[: span.start]] = torch.randn(past, generator=generator).to(dtype)

    sinks = torch.randn(shape.heads, generator=generator).to(dtype) if has_sinks else None
    out = TorchOps(batch, dtype).attend(qkv, layer, shape, HeadVectors(sinks=sinks))
    q = qkv[:, : shape.heads * shape.head_dim].view(batch.rows, shape.heads, shape.head_dim)
    for span, context, start, end in zip(spans, contexts, batch.offsets, batch.offsets[1:], strict=False):
        positions = range(span.start, span.end)
        k, v = layer.keys[context], layer.values[context]
        expected = attention_by_definition(q[start:end], k, v, positions, shape, sinks)
        error = (out[start:end].double() - expected).abs().max() / v.double().abs().max()
        assert float(error) < TOLERANCE[dtype]  # of the values that are averaged: an average may be near zero


# --- the rest -----------------------------------------------------------------------------------------


def test_rotation_and_where_k_and_v_go() -> None:
    inv_freq, block_size = torch.tensor([1.0, 0.1, 0.01]), 4
    shape = AttentionShape(4, 4, 6, scale=1.0, rope=Rope((1.0, 0.1, 0.01), 1.5))
    spans = [Span([0] * 3, 5, ([4, 2],), 3), Span([0], 0, ([1],), 1)]
    layer = empty_cache(shape, 6, block_size, torch.float32)
    torch.manual_seed(0)
    qkv = torch.randn(4, 12 * 6)
    TorchOps(Batch.of(spans, block_size, CPU), torch.float32).attend(qkv, layer, shape, HeadVectors())

    def rotated(row: int, head: int, position: int) -> Tensor:
        """Pair i of a head is a complex number, turned by position * inv_freq[i]."""
        low, high = qkv[row].view(12, 2, 3)[head].double()
        turned = torch.complex(low, high) * torch.polar(torch.full((3,), 1.5), position * inv_freq)
        return torch.cat([turned.real, turned.imag])

    places = {0: (5, 2 * 4 + 1), 1: (6, 2 * 4 + 2), 2: (7, 2 * 4 + 3), 3: (0, 1 * 4)}  # row: position, slot
    for row, (position, slot) in places.items():
        for head in range(4):
            key = layer.keys[slot, head].double()
            assert torch.allclose(key, rotated(row, 4 + head, position), atol=1e-6)
            assert torch.equal(layer.values[slot, head], qkv[row].view(12, 6)[8 + head])
    written = {slot for _, slot in places.values()} | set(range(block_size))
    assert set(layer.keys[:, 0, 0].isnan().logical_not().nonzero().flatten().tolist()) == written


def test_norm_gate_and_embedding() -> None:
    torch.manual_seed(0)
    batch = Batch.of([Span([3, 0, 3], 0, ([0],), 2)], 4, CPU)
    ops = TorchOps(batch, torch.float32)
    x, weight = torch.randn(5, 4), torch.randn(4)
    gate, up = torch.randn(6, 4), torch.randn(6, 4)
    norm = x.double() / (x.double().pow(2).mean(dim=1, keepdim=True) + 0.1).sqrt() * weight.double()
    assert relative_error(ops.norm(x, weight, 0.1), norm) < 1e-6
    assert relative_error(ops.norm(x, weight, 0.1, residual=x), x.double() + norm) < 1e-6
    halves = x.double().view(5, 2, 2)
    by_head = (halves / (halves.pow(2).mean(dim=2, keepdim=True) + 0.1).sqrt()).flatten(1) * weight.double()
    assert relative_error(ops.norm_heads(x, weight, 2, 0.1), by_head) < 1e-6
    left, right = (x.double() @ w.double().T for w in (gate, up))
    opened: dict[Activation, Tensor] = {
        "silu": left * torch.sigmoid(left),
        "gelu": left * (1 + torch.erf(left / math.sqrt(2))) / 2,
        "gelu_tanh": left * (1 + torch.tanh(math.sqrt(2 / math.pi) * (left + 0.044715 * left**3))) / 2,
    }
    for activation, of_gate in opened.items():
        gated = ops.gated(x, pack_linear(gate, None), pack_linear(up, None), activation)
        assert relative_error(gated, of_gate * right) < 1e-6
    added = ops.linear(x, pack_linear(gate, None), residual=torch.ones(5, 6), scale=0.5)
    assert relative_error(added, 0.5 * left + 1) < 1e-6
    assert relative_error(ops.soft_cap(x, 2.0), 2 * torch.tanh(x.double() / 2)) < 1e-6
    assert torch.equal(ops.embed(x, 3.0), 3 * x[[3, 0, 3]])
    assert torch.equal(ops.select_logit_rows(x[:3]), x[1:3])


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 7), st.integers(0, 7)), min_size=1, max_size=4
    ),
    block_size=st.integers(1, 5),
    groups=st.integers(1, 3),
)
@settings(max_examples=50, deadline=None)
def test_batch_of_spans(sizes: list[tuple[int, int, int]], block_size: int, groups: int) -> None:
    """Row by row, what `Batch.of` lays out, with tables of several groups; some lack first blocks."""
    spans: list[Span] = []
    first_block = 0
    for start, length, logits in sizes:
        count = -(-(start + length) // block_size)
        tables = []
        for group in range(groups):
            blocks = list(range(first_block, first_block + count))[::-1]
            behind = group * (start // block_size) // 2
            tables.append([-1] * behind + blocks[behind:])
            first_block += count
        spans.append(Span(list(range(length)), start, tuple(tables), min(logits, length)))
    batch = Batch.of(spans, block_size, CPU)

    def slot(span: Span, group: int, position: int) -> int:
        block = span.tables[group][position // block_size]
        return block * block_size + position % block_size if block >= 0 else slot(span, group, span.start)

    slots = [[[slot(span, g, p) for p in range(span.end)] for span in spans] for g in range(groups)]
    rows = [(i, p) for i, span in enumerate(spans) for p in range(span.start, span.end)]
    assert batch.rows == len(rows)
    assert [[context.tolist() for context in of_group] for of_group in batch.contexts] == slots
    assert batch.positions.tolist() == [p for _, p in rows]
    assert [of_group.tolist() for of_group in batch.slots] == [
        [of_group[i][p] for i, p in rows] for of_group in slots
    ]
    assert batch.tokens.tolist() == [p - spans[i].start for i, p in rows]
    wanted = [n for n, (i, p) in enumerate(rows) if p >= spans[i].end - spans[i].logit_rows]
    assert batch.logit_rows.tolist() == wanted
