"""Attention in native programs: against its definition, and bit for bit in any batch, layout and split."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.oracle import Array, Attention, Rope, relative_error
from tests.ops.programs import (
    BEST,
    INSTRUCTION_SETS,
    Kind,
    Layer,
    Piece,
    attend,
    matrix,
    new_cache,
    numbers,
    program,
    rounded,
)

every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
LIMITS: dict[Kind, float] = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 1e-2}


def rope(pairs: int, *, factor: float = 1.0, interleaved: bool = False) -> Rope:
    return Rope(np.float32(0.3) ** np.arange(pairs, dtype=np.float32), factor, interleaved)


def qkv(attention: Attention, length: int, seed: int) -> Array:
    return numbers(length, attention.width, seed=seed)


PLAIN = Attention(6, 2, 64, 0.125, rope(32))
LAYERS = {
    "as in Llama": PLAIN,
    "head_dim 80, no rope": Attention(4, 4, 80, 80**-0.5),
    "half of each head turns": replace(PLAIN, rope=rope(16)),
    "neighbours pair": replace(PLAIN, rope=rope(32, interleaved=True)),
    "a part turns, neighbours pair": Attention(8, 2, 128, 0.1, rope(32, interleaved=True)),
    "cos and sin scaled": replace(PLAIN, rope=rope(32, factor=1.3)),
    "a norm of each head": replace(PLAIN, q_norm=numbers(64, seed=1), k_norm=numbers(64, seed=2)),
    "norms of all heads": replace(PLAIN, q_norm=numbers(384, seed=1), k_norm=numbers(128, seed=2)),
    "a norm of q alone": replace(PLAIN, q_norm=numbers(64, seed=1), norm_eps=0.5),
    "five K/V heads, four in a task": Attention(15, 5, 64, 0.125, rope(32)),
    "scale": Attention(4, 1, 256, 0.03, rope(128)),
    "soft cap": Attention(4, 2, 96, 0.5, rope(48), soft_cap=3.0),
    "sinks": replace(PLAIN, sinks=np.array([-9, -1, 0, 1, 2, 9], np.float32)),
    "window": replace(PLAIN, window=50),
    "window of one": replace(PLAIN, window=1),
    "window beyond the context": replace(PLAIN, window=1000),
    "all of it": Attention(
        6,
        3,
        20,
        0.4,
        rope(6, factor=1.1, interleaved=True),
        window=70,
        soft_cap=5.0,
        q_norm=numbers(20, seed=1),
        k_norm=numbers(60, seed=2),
        sinks=numbers(6, seed=3),
    ),
}


@every_set
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("name", LAYERS)
def test_by_definition(name: str, kind: Kind, instruction_set: str) -> None:
    attention = LAYERS[name]
    x = qkv(attention, 150, 3)
    got = Layer(attention, kind=kind, instruction_set=instruction_set, threads=2).whole(x)
    assert relative_error(got, attention(x, *rounded(kind))) < LIMITS[kind]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kv_heads, share = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    head_dim = draw(st.sampled_from((2, 6, 16, 20, 64, 80, 96, 128, 256)))
    heads = kv_heads * share
    turned = draw(st.sampled_from((0, head_dim // 4, head_dim // 2)))

    def norm(count: int) -> Array | None:
        size = draw(st.sampled_from((0, head_dim, count * head_dim)))
        return numbers(size, seed=size) if size else None

    attention = Attention(
        heads,
        kv_heads,
        head_dim,
        draw(st.sampled_from((head_dim**-0.5, 0.3))),
        rope(turned, interleaved=draw(st.booleans())) if turned else None,
        window=draw(st.sampled_from((1, 7, 40, 130, None))),
        soft_cap=draw(st.sampled_from((2.0, 50.0, None))),
        q_norm=norm(heads),
        k_norm=norm(kv_heads),
        sinks=draw(st.sampled_from((None, numbers(heads, seed=5)))),
    )
    return Layer(
        attention,
        draw(st.sampled_from((1, 5, 16, 24, 32, 48))),
        draw(st.sampled_from(tuple(LIMITS))),
        draw(st.sampled_from(INSTRUCTION_SETS)),
        draw(st.integers(1, 3)),
        blocks=1,
    )


def chunked(length: int, draw: random.Random) -> list[tuple[int, int]]:
    """Cuts 0..length into chunks, most of them short."""
    cuts, at = [], 0
    while at < length:
        end = min(length, at + draw.choice((1, 1, 2, 5, 9, 17, 60)))
        cuts.append((at, end))
        at = end
    return cuts


@settings(max_examples=60, deadline=None)
@given(
    layer=layers(), lengths=st.lists(st.integers(1, 180), min_size=1, max_size=3), seed=st.integers(0, 999)
)
def test_any_batch_any_chunks(layer: Layer, lengths: list[int], seed: int) -> None:
    """Every request is cut into chunks that are mixed with the others', and gives blocks back that its window
    has left; each row is what it is alone, and by definition."""
    texts = [qkv(layer.attention, length, seed + i) for i, length in enumerate(lengths)]
    blocks = sum(-(-length // layer.block_size) for length in lengths)
    layer = replace(layer, blocks=blocks, tables={})
    draw = random.Random(seed)
    waiting = [chunked(length, draw) for length in lengths]
    rows: list[list[Array]] = [[] for _ in lengths]
    while any(waiting):
        chosen = [i for i, chunks in enumerate(waiting) if chunks and draw.random() < 0.7]
        draw.shuffle(chosen)
        pieces = [Piece(i, texts[i], *waiting[i].pop(0)) for i in chosen]
        for i, out in zip(chosen, layer.run(pieces) if pieces else [], strict=True):
            rows[i].append(out)
    for i, x in enumerate(texts):
        other = Layer(layer.attention, 16, layer.kind, layer.instruction_set, 1, seed=1)
        whole = other.whole(x)
        assert np.array_equal(np.concatenate(rows[i]), whole)
        error = np.abs(whole - layer.attention(x, *rounded(layer.kind))).max()
        assert error < 2 * LIMITS[layer.kind] * np.abs(x).max()


@settings(max_examples=30, deadline=None)
@given(
    layer=layers(),
    length=st.integers(120, 500),
    rows=st.integers(1, 20),
    others=st.integers(1, 12),
    threads=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_a_request_alone_or_among_many(
    layer: Layer, length: int, rows: int, others: int, threads: int, seed: int
) -> None:
    """Alone its keys are split over threads; beside enough others they are not."""
    blocks = (others + 1) * -(-(length + 1) // layer.block_size)
    layer = replace(layer, threads=threads, blocks=blocks, tables={})
    texts = [qkv(layer.attention, length + (i > 0), seed + i) for i in range(others + 1)]
    last = [Piece(i, x, len(x) - rows, len(x)) for i, x in enumerate(texts)]
    layer.run([Piece(i, x, 0, len(x) - rows) for i, x in enumerate(texts)])
    among = layer.run(last)
    for i, piece in enumerate(last):
        assert np.array_equal(layer.run([piece])[0], among[i])


@every_set
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    "name", ["as in Llama", "five K/V heads, four in a task", "sinks", "soft cap", "all of it"]
)
def test_long_context_decoded_row_by_row(name: str, kind: Kind, instruction_set: str) -> None:
    """Split over threads at fixed positions, or not: the same bits, and by definition."""
    attention = replace(LAYERS[name], window=None if name != "all of it" else 600)
    x = qkv(attention, 700, 5)
    layer = Layer(attention, kind=kind, instruction_set=instruction_set, threads=3)
    whole = Layer(attention, kind=kind, instruction_set=instruction_set, seed=1).whole(x)
    layer.run([Piece(0, x, 0, 690)])
    single = np.concatenate([layer.run([Piece(0, x, p, p + 1)])[0] for p in range(690, 700)])
    assert np.array_equal(single, whole[690:])
    assert relative_error(whole[600:], attention(x, *rounded(kind))[600:]) < LIMITS[kind]


def test_blocks_behind_the_window_are_not_read() -> None:
    """Their entries are -1, and what was in them is NaN."""
    attention = replace(PLAIN, window=50)
    x = qkv(attention, 200, 1)
    layer = Layer(attention, block_size=16)
    expected = Layer(attention, block_size=16, blocks=13).whole(x)
    out = [layer.run([Piece(0, x, p, min(200, p + 3))])[0] for p in range(0, 200, 3)]
    assert layer.tables[0].count(-1) == (198 - 49) // 16
    assert np.array_equal(np.concatenate(out), expected)


def test_layers_of_one_program_have_attention_of_their_own() -> None:
    """Other heads, ropes, windows, groups of block tables and sizes of blocks."""
    first = Attention(4, 2, 32, 0.2, rope(16), window=9)
    second = Attention(2, 2, 48, 0.1, rope(8, interleaved=True), soft_cap=4.0)
    third = Attention(4, 2, 32, 0.3, None, sinks=numbers(4))
    a, b = numbers(second.width, 128, seed=1, scale=0.1), numbers(third.width, 96, seed=2, scale=0.1)
    sizes, counts = (16, 5, 16), (8, 30, 9)
    caches = [
        new_cache(layer, count, size)
        for layer, count, size in zip((first, second, third), counts, sizes, strict=True)
    ]
    p = program(count=2)
    value = attend(p, p.input(first.width), first, *caches[0], group=0)
    value = attend(p, p.linear(value, [matrix(a)]), second, *caches[1], group=2)
    p.output(attend(p, p.linear(value, [matrix(b)]), third, *caches[2], group=1))
    x, length = qkv(first, 100, 0), 100
    tables = [list(range(7)), list(range(1, 8))[::-1], list(range(29, 8, -1))]

    def run(start: int, end: int) -> Array:
        given = [t if g else [-1] * (max(0, start - 8) // 16) + t[max(0, start - 8) // 16 :]
                 for g, t in enumerate(tables)]  # fmt: skip
        return np.asarray(p.run([0] * (end - start), [start], [end - start], [given], [0], x[start:end]))

    whole = run(0, length)
    (stored,) = rounded("float32")
    expected = third(second(first(x, stored) @ a.T, stored) @ b.T, stored)
    assert relative_error(whole, expected) < 1e-5
    parts = np.concatenate([run(p, p + 20) for p in range(0, length, 20)])
    assert np.array_equal(parts, whole)


def test_equal_ropes_are_one() -> None:
    p = program()
    values = np.ones(4, np.float32)
    assert p.rope(values) == p.rope(torch.ones(4), 1.0, False) == 0
    assert [p.rope(values, 2.0), p.rope(values, 1.0, True), p.rope(values[:3]), p.rope(values)] == [
        1,
        2,
        3,
        0,
    ]


def test_bfloat16_of_torch_is_uint16_of_numpy() -> None:
    x = qkv(PLAIN, 40, 0)
    keys, values = new_cache(PLAIN, 3, 16, "bfloat16")
    results = []
    for arrays in ((keys, values), tuple(torch.from_numpy(a).view(torch.bfloat16) for a in (keys, values))):
        p = program()
        p.output(attend(p, p.input(PLAIN.width), PLAIN, *arrays))
        results.append(p.run([0] * 40, [0], [40], [[[2, 0, 1]]], [0], x))
        written = keys.copy()
    assert np.array_equal(results[0], results[1])
    assert not (written[2] == 0x7FC0).any()


def test_many_long_requests() -> None:
    """More pieces of attention, if each chunk of keys were one, than a stage can count."""
    requests, length = 64, 2**15
    attention = Attention(8, 8, 2, 0.7)
    keys, values = numbers(1, 8, 2, 1024), numbers(1, 8, 1024, 2, seed=1)
    p = program(count=2)
    p.output(attend(p, p.input(attention.width), attention, keys, values))
    table = [0] * (length // 1024)
    x = qkv(attention, requests, 2)
    x[1:, 16:] = x[0, 16:]  # all write the same, to the same place

    def run(x: Array) -> Array:
        n = len(x)
        return np.asarray(p.run([0] * n, [length - 1] * n, [1] * n, [[table]] * n, [0] * n, x))

    together = run(x)
    for i in (0, 17, 63):
        assert np.array_equal(run(x[i : i + 1]), together[i : i + 1])


def test_many_kv_heads() -> None:
    """More of them than all else that a thread needs room for."""
    attention = Attention(512, 512, 16, 0.25, rope(8))
    x = qkv(attention, 3, 0)
    assert relative_error(Layer(attention, blocks=1).whole(x), attention(x, *rounded("float32"))) < 1e-5


@pytest.mark.parametrize("name", ["as in Llama", "all of it"])
def test_a_later_row_of_nan_reaches_no_earlier_one(name: str) -> None:
    attention = LAYERS[name]
    x = qkv(attention, 40, 5)
    clean = Layer(attention).whole(x)
    x[30:] = np.nan
    dirty = Layer(attention).whole(x)
    assert np.array_equal(dirty[:30], clean[:30])
    assert bool(np.isnan(dirty[30:]).all())


def test_a_large_sink_takes_all_weight_and_a_small_one_none() -> None:
    x = qkv(PLAIN, 60, 0)
    plain = Layer(PLAIN).whole(x)

    def with_sinks(value: float) -> Array:
        return Layer(replace(PLAIN, sinks=np.full(6, value, np.float32))).whole(x)

    assert np.array_equal(with_sinks(-1e30), plain)
    assert float(np.abs(with_sinks(60.0)).max()) < 1e-20
    assert math.isclose(float(np.abs(with_sinks(1e30)).max()), 0.0)


def faulty(x: Array, attention: Attention) -> dict[str, Array]:
    """What plausible mistakes would make of it."""
    wrong: dict[str, dict[str, Any]] = {
        "no rope": {"rope": None},
        "not interleaved": {"rope": replace(attention.rope, interleaved=False) if attention.rope else None},
        "a key too many": {"window": (attention.window or 0) + 1},
        "no cap": {"soft_cap": None},
        "no sinks": {"sinks": None},
        "no norm of k": {"k_norm": None},
        "another eps": {"norm_eps": 1e-3},
    }
    return {name: replace(attention, **change)(x, *rounded("float32")) for name, change in wrong.items()}


def test_the_definition_notices_mistakes() -> None:
    attention = LAYERS["all of it"]
    x = qkv(attention, 100, 3)
    got = Layer(attention, instruction_set=BEST).whole(x)
    assert all(relative_error(got, wrong) > 10 * LIMITS["float32"] for wrong in faulty(x, attention).values())
