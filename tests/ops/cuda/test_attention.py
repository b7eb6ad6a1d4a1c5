"""Attention on the GPU's kernels: by definition, and bit for bit in any chunk, batch, place and tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.cuda import attention as attention_module
from outrider.ops.cuda import layout as layout_module
from outrider.ops.cuda.attention import attend
from outrider.ops.cuda.heads import place_heads
from outrider.ops.shapes import AttentionShape, HeadVectors, Temperature
from outrider.ops.shapes import Rope as RopeShape
from outrider.ops.span import Span
from tests.ops.cuda import DEVICE, ON_GPU, batch_of
from tests.ops.cuda.test_linear import numbers
from tests.ops.oracle import Attention, Rope

BLOCK, LENGTH = 16, 1200 if ON_GPU else 40
FREQUENCIES = np.float32(0.3) ** np.arange(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter, tiles and splits of which a short text has several."""
    if not ON_GPU:
        monkeypatch.setattr(attention_module, "KEYS", 16)
        for module in (attention_module, layout_module):
            monkeypatch.setattr(module, "SPLIT", 32)


PLAIN = Attention(4, 2, 8, 0.35, Rope(FREQUENCIES))
LAYERS = {
    "as in Llama": PLAIN,
    "everything": Attention(
        6, 2, 12, 0.4, Rope(FREQUENCIES, 1.1, interleaved=True), 30, 5.0,
        numbers(12).cpu().numpy(), numbers(24, seed=1).cpu().numpy(), sinks=numbers(6, seed=2).cpu().numpy(),
    ),
}  # fmt: skip


class Layer:
    """One layer with a cache whose blocks are scattered, and NaN until they are written."""

    def __init__(self, a: Attention, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        rope = (
            None if a.rope is None else RopeShape(tuple(a.rope.inv_freq), a.rope.factor, a.rope.interleaved)
        )
        self.shape = AttentionShape(
            a.heads, a.kv_heads, a.head_dim, a.scale, rope, a.window, a.soft_cap, a.norm_eps
        )
        blocks = 2 * -(-LENGTH // BLOCK) + 4
        size = (blocks * BLOCK, a.kv_heads, a.head_dim)
        keys = torch.full(size, torch.nan, dtype=dtype, device=DEVICE)
        self.cache = LayerCache(keys, keys.clone())
        vectors = (a.q_norm, a.k_norm, a.sinks)
        self.vectors = HeadVectors(*(None if v is None else torch.from_numpy(v).to(DEVICE) for v in vectors))
        self.free = [int(block) for block in np.random.default_rng(seed).permutation(blocks)]
        inv_freq = () if rope is None else rope.inv_freq
        self.frequencies = torch.tensor(inv_freq, dtype=torch.float32, device=DEVICE)
        self.dtype = dtype

    def table(self) -> list[int]:
        return [self.free.pop() for _ in range(-(-LENGTH // BLOCK))]

    def run(self, qkv: Tensor, spans: list[Span]) -> Tensor:
        batch = batch_of(spans, BLOCK)
        rows = torch.zeros((len(batch.tokens), qkv.shape[1]), device=DEVICE)
        rows[: len(qkv)] = qkv
        q = place_heads(rows, batch, self.cache, self.shape, self.vectors, self.frequencies, self.dtype)
        return attend(q, batch, self.cache, self.shape, self.vectors.sinks)[: len(qkv)]


def span(table: list[int], start: int, end: int, **more: Any) -> Span:
    return Span([0] * (end - start), start, (table,), 0, **more)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_by_definition(name: str, dtype: torch.dtype) -> None:
    a = LAYERS[name]
    layer, x = Layer(a, dtype), numbers(LENGTH, a.width)
    found = layer.run(x, [span(layer.table(), 0, LENGTH)]).float().cpu().numpy()

    def stored(part: Any) -> Any:
        return torch.from_numpy(part).to(dtype).float().numpy()

    limit = 3e-6 if dtype == torch.float32 else 3e-2
    wanted = a(x.cpu().numpy(), stored)
    assert np.abs(found - wanted).max() < limit * np.abs(wanted).max()


@pytest.mark.parametrize("name", LAYERS)
def test_any_chunks_and_batch(name: str) -> None:
    """Each row is what it is in one chunk of all, whatever is computed beside it, in whichever blocks."""
    a = LAYERS[name]
    layer, texts = Layer(a), [numbers(LENGTH, a.width, seed=seed) for seed in (3, 4)]
    wholes = [layer.run(x, [span(layer.table(), 0, LENGTH)]) for x in texts]
    other = Layer(a, seed=5)
    tables = [other.table() for _ in texts]
    one, two = (
        ((0, 9), (9, 10), (10, 33), (33, LENGTH)),
        ((0, 1), (1, 31), (31, LENGTH - 1), (LENGTH - 1, LENGTH)),
    )
    for first, second in zip(one, two, strict=True):
        parts = [texts[0][slice(*first)], texts[1][slice(*second)]]
        out = other.run(torch.cat(parts), [span(tables[0], *first), span(tables[1], *second)])
        wanted = [wholes[0][slice(*first)], wholes[1][slice(*second)]]
        assert torch.equal(out, torch.cat(wanted)), (first, second)


def test_a_path_of_a_tree_is_a_chain() -> None:
    """Rows that hang on any other see their own path alone, and are what they would be in a chain."""
    a = replace(PLAIN, window=25)
    layer, trunk = Layer(a), 30 if not ON_GPU else 1100
    x = numbers(trunk + 5, a.width)
    parents = (-1, 0, 0, 1, -1)  # behind the last row of the trunk
    table = layer.table()
    layer.run(x[: trunk - 1], [span(table, 0, trunk - 1)])
    tree = layer.run(x[trunk - 1 :], [span(table, trunk - 1, trunk + 5, parents=parents)])
    for path in ((0, 1, 3), (0, 2), (4,)):
        other = Layer(a, seed=1)
        rows = torch.cat([x[:trunk], *(x[trunk + node : trunk + node + 1] for node in path)])
        chain = other.run(rows, [span(other.table(), 0, len(rows))])
        assert torch.equal(tree[[1 + node for node in path]], chain[trunk:])


def test_blocks_behind_the_window_are_not_read() -> None:
    a = replace(PLAIN, window=20)
    layer, x = Layer(a), numbers(LENGTH, a.width)
    table = layer.table()
    whole = layer.run(x, [span(table, 0, LENGTH)])
    gone = [-1 if (n + 1) * BLOCK <= LENGTH - 20 else block for n, block in enumerate(table)]
    assert gone[0] == -1
    assert torch.equal(layer.run(x[-1:], [span(gone, LENGTH - 1, LENGTH)]), whole[-1:])


def test_scores_that_grow_values_normed_and_keys_as_values() -> None:
    """Against rows of plain attention to which the same was done beforehand."""
    a = Attention(2, 1, 8, 0.5)
    layer, x = Layer(a), numbers(20, a.width)
    layer.shape = replace(layer.shape, temperature=Temperature(0.3, 6), values_normed=True, norm_eps=1e-6)
    found = layer.run(x, [span(layer.table(), 0, 20)])
    y = x.clone().double().cpu()
    y[:, :16] *= (1 + 0.3 * torch.log(torch.arange(20) // 6 + 1.0))[:, None]
    y[:, 24:] /= (y[:, 24:].square().mean(1, keepdim=True) + 1e-6).sqrt()
    np.testing.assert_allclose(found.cpu().numpy(), a(y.numpy(), lambda part: part), rtol=1e-4, atol=1e-5)
    layer.shape = replace(layer.shape, temperature=None, values_normed=False, kv="keys")
    found = layer.run(x[:, :24].contiguous(), [span(layer.table(), 0, 20)])
    wanted = a(torch.cat([x[:, :24], x[:, 16:24]], 1).cpu().numpy(), lambda part: part)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_many_rows_are_computed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Layer(PLAIN), numbers(20, PLAIN.width)
    table = layer.table()
    whole = layer.run(x, [span(table, 0, 20)])
    monkeypatch.setattr(layout_module, "SCRATCH", 1)
    assert torch.equal(layer.run(x, [span(table, 0, 20)]), whole)


def test_planted_fault_tiles_by_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile that depends on how many rows there are is seen by the equality of chunks."""
    real = attention_module.attend

    def faulty(q: Tensor, *arguments: Any) -> Tensor:
        monkeypatch.setattr(attention_module, "KEYS", 16 if len(q) > 8 else 32)
        return real(q, *arguments)

    layer, x = Layer(PLAIN), numbers(LENGTH, PLAIN.width)
    table = layer.table()
    monkeypatch.setitem(globals(), "attend", faulty)
    whole = layer.run(x, [span(table, 0, LENGTH)])
    assert not torch.equal(layer.run(x[-1:], [span(table, LENGTH - 1, LENGTH)]), whole[-1:])
