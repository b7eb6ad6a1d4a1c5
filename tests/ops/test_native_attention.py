"""Native attention over a paged cache: against its definition, and bit for bit in any batch and layout."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outrider.cache.store import LayerCache
from tests.ops.native import INSTRUCTION_SETS, native, relative_error, threads


@dataclass(frozen=True)
class Setting:
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    block_size: int
    dtype: torch.dtype
    instruction_set: str
    threads: int = 2


@dataclass(frozen=True)
class Text:
    """qkv: float32 [length, (heads + 2 kv_heads) * head_dim], for every position of one request."""

    qkv: Tensor

    def __len__(self) -> int:
        return len(self.qkv)


class Machine:
    """Rotation, K/V write and attention of one layer, with blocks scattered over the cache."""

    def __init__(self, setting: Setting, num_blocks: int, seed: int) -> None:
        s = self.setting = setting
        shape = (num_blocks, s.kv_heads)
        self.cache = LayerCache(
            torch.full((*shape, s.head_dim, s.block_size), torch.nan, dtype=s.dtype),
            torch.full((*shape, s.block_size, s.head_dim), torch.nan, dtype=s.dtype),
        )
        self.free = random.Random(seed).sample(range(num_blocks), num_blocks)
        inv_freq = [0.3**i for i in range(s.head_dim // 2)]
        self.program = native.Program(
            threads(s.threads), s.instruction_set, [s.heads, s.kv_heads, s.head_dim, s.window], inv_freq, 1.0
        )
        qkv = self.program.input((s.heads + 2 * s.kv_heads) * s.head_dim)
        q = self.program.rotate_and_store(qkv, self.cache.keys, self.cache.values)
        self.program.output(self.program.attend(q, self.cache.keys, self.cache.values))
        self.tables: dict[int, list[int]] = {}

    def run(self, spans: list[tuple[int, Text, int, int]]) -> list[Tensor]:
        """spans: (request, its text, first position, last position exclusive); the rows' results."""
        for request, _, _, end in spans:
            table = self.tables.setdefault(request, [])
            while len(table) * self.setting.block_size < end:
                table.append(self.free.pop())
        x = torch.cat([text.qkv[start:end] for _, text, start, end in spans])
        rows = [end - start for _, _, start, end in spans]
        out = self.program.run(
            [0] * len(x),
            [s for _, _, s, _ in spans],
            rows,
            [self.tables[r] for r, *_ in spans],
            [0] * len(rows),
            x,
        )
        return list(torch.split(torch.from_numpy(out), rows))


def text(setting: Setting, length: int, seed: int) -> Text:
    features = (setting.heads + 2 * setting.kv_heads) * setting.head_dim
    return Text(torch.randn(length, features, generator=torch.Generator().manual_seed(seed)))


def by_definition(setting: Setting, t: Text) -> Tensor:
    """float64 [length, heads * head_dim], with K and V rounded as the cache stores them."""
    s = setting
    x = t.qkv.double().view(len(t), -1, s.head_dim)
    inv_freq = torch.tensor([0.3**i for i in range(s.head_dim // 2)])
    angles = (torch.arange(len(t)).float()[:, None] * inv_freq).double()[:, None]
    low, high = x[:, : s.heads + s.kv_heads].chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)
    q, k = turned[:, : s.heads], turned[:, s.heads :].to(s.dtype).double()
    v = x[:, s.heads + s.kv_heads :].to(s.dtype).double()
    k, v = (part.repeat_interleave(s.heads // s.kv_heads, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(s.head_dim)
    distance = torch.arange(len(t))[:, None] - torch.arange(len(t))
    scores = scores.masked_fill((distance < 0) | (distance >= s.window), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), v).flatten(1)


settings_of_layers = st.builds(
    lambda kv, share, dim, window, block, dtype, isa, count: Setting(
        kv * share, kv, dim, window, block, dtype, isa, count
    ),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from((2, 6, 16, 20, 64)),
    st.sampled_from((1, 7, 40, 10**6)),
    st.sampled_from((1, 5, 16, 24, 32, 48)),
    st.sampled_from((torch.float32, torch.bfloat16)),
    st.sampled_from(INSTRUCTION_SETS),
    st.integers(1, 3),
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
    setting=settings_of_layers,
    lengths=st.lists(st.integers(1, 180), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_any_batch_any_chunks(setting: Setting, lengths: list[int], seed: int) -> None:
    """Every request is cut into chunks that are mixed with the others'; each row is what it is alone."""
    texts = [text(setting, length, seed + i) for i, length in enumerate(lengths)]
    blocks = sum(-(-length // setting.block_size) for length in lengths)
    draw = random.Random(seed)
    mixed = Machine(setting, 2 * blocks, seed)
    waiting = [chunked(length, draw) for length in lengths]
    rows: list[list[Tensor]] = [[] for _ in lengths]
    while any(waiting):
        chosen = [i for i, chunks in enumerate(waiting) if chunks and draw.random() < 0.7]
        draw.shuffle(chosen)
        spans = [(i, texts[i], *waiting[i].pop(0)) for i in chosen]
        for i, out in zip(chosen, mixed.run(spans) if spans else [], strict=True):
            rows[i].append(out)
    other = Setting(**{**setting.__dict__, "threads": 1, "block_size": 16})
    for i, t in enumerate(texts):
        (whole,) = Machine(other, 32, seed + 1).run([(0, t, 0, len(t))])
        assert torch.equal(torch.cat(rows[i]), whole)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "length"), [(10**6, 300), (50, 300), (1, 40)])
def test_against_float64(instruction_set: str, dtype: torch.dtype, window: int, length: int) -> None:
    setting = Setting(6, 2, 20, window, 16, dtype, instruction_set)
    t = text(setting, length, 3)
    (whole,) = Machine(setting, 40, 0).run([(0, t, 0, length)])
    assert relative_error(whole, by_definition(setting, t)) < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_long_context_decoded_row_by_row(instruction_set: str) -> None:
    """Split over threads at fixed positions, or not: the same bits."""
    setting = Setting(3, 1, 64, 10**6, 16, torch.bfloat16, instruction_set, 3)
    t = text(setting, 700, 5)
    machine, alone = Machine(setting, 60, 0), Machine(Setting(**{**setting.__dict__, "threads": 1}), 60, 1)
    (whole,) = alone.run([(0, t, 0, 700)])
    machine.run([(0, t, 0, 690)])
    single = torch.cat([machine.run([(0, t, p, p + 1)])[0] for p in range(690, 700)])
    assert torch.equal(single, whole[690:])
    assert relative_error(whole[600:], by_definition(setting, t)[600:]) < 1e-2


@settings(max_examples=30, deadline=None)
@given(
    setting=settings_of_layers,
    length=st.integers(120, 500),
    rows=st.integers(1, 20),
    others=st.integers(1, 12),
    threads=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_a_request_alone_or_among_many(
    setting: Setting, length: int, rows: int, others: int, threads: int, seed: int
) -> None:
    """Alone its keys are split over threads; beside enough others they are not."""
    setting = replace(setting, threads=threads)
    texts = [text(setting, length + (i > 0), seed + i) for i in range(others + 1)]
    blocks = (others + 1) * -(-(length + 1) // setting.block_size)
    machine = Machine(setting, blocks, seed)
    last = [(i, t, len(t) - rows, len(t)) for i, t in enumerate(texts)]
    machine.run([(i, t, 0, start) for i, t, start, _ in last])
    among = machine.run(last)
    for i, span in enumerate(last):
        assert torch.equal(machine.run([span])[0], among[i])


def test_many_long_requests() -> None:
    """More pieces of attention, if each chunk of keys were one, than a stage can count."""
    requests, kv_heads, length = 64, 8, 2**15
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, kv_heads, 2, 1024, generator=generator)
    values = torch.randn(1, kv_heads, 1024, 2, generator=generator)
    program = native.Program(threads(2), INSTRUCTION_SETS[0], [kv_heads, kv_heads, 2, 10**6], [1.0], 1.0)
    program.output(program.attend(program.input(2 * kv_heads), keys, values))
    table = [0] * (length // 1024)

    def run(q: Tensor) -> Tensor:
        n = len(q)
        return torch.from_numpy(program.run([0] * n, [length - 1] * n, [1] * n, [table] * n, [0] * n, q))

    q = torch.randn(requests, 2 * kv_heads, generator=generator)
    together = run(q)
    for i in (0, 17, 63):
        assert torch.equal(run(q[i : i + 1]), together[i : i + 1])


def test_many_kv_heads() -> None:
    """More of them than all else that a thread needs room for."""
    setting = Setting(512, 512, 16, 10**6, 16, torch.float32, INSTRUCTION_SETS[0])
    t = text(setting, 3, 0)
    (whole,) = Machine(setting, 1, 0).run([(0, t, 0, 3)])
    assert relative_error(whole, by_definition(setting, t)) < 1e-5


def test_a_later_row_of_nan_reaches_no_earlier_one() -> None:
    setting = Setting(3, 1, 32, 10**6, 16, torch.float32, INSTRUCTION_SETS[0])
    t = text(setting, 40, 5)
    (clean,) = Machine(setting, 4, 0).run([(0, t, 0, 40)])
    t.qkv[30:] = torch.nan
    (dirty,) = Machine(setting, 4, 0).run([(0, t, 0, 40)])
    assert torch.equal(dirty[:30], clean[:30])
    assert bool(dirty[30:].isnan().all())
