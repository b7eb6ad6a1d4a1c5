"""Layers that keep a state, on the GPU's kernels: by their definition, and bit for bit however rows come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from outrider.cache.store import StateCache
from outrider.ops.cuda import layout as layout_module
from outrider.ops.cuda import states
from outrider.ops.shapes import ConvShape
from tests.ops.cuda import DEVICE, ON_GPU, batch_of
from tests.ops.oracle import relative_error
from tests.ops.programs import numbers
from tests.ops.test_program_state_trees import differing
from tests.ops.test_program_states import (
    BIAS,
    CHANNELS,
    LAYERS,
    RATES,
    SHIFTS,
    SLOTS,
    UNUSED,
    VALUE_HEADS,
    Part,
    Run,
    StateLayer,
    every_layer,
    whole,
)

every_kind = pytest.mark.parametrize("name", ["convolution", "delta"])


@pytest.fixture(autouse=True)
def _wide_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter a program takes as long whatever the width of its tile."""
    if not ON_GPU:
        monkeypatch.setattr(states, "VALUES", 64)


def there(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(DEVICE)


def on_gpu(layer: StateLayer) -> Run:
    """A layer with states of its own."""
    cache = StateCache(torch.full((SLOTS, *layer.shape.state), UNUSED, device=DEVICE))

    def run(parts: Sequence[Part]) -> list[Any]:
        rows = [len(part.x) for part in parts]
        batch = batch_of([part.span for part in parts], 1)
        x = torch.zeros((len(batch.tokens), layer.width), device=DEVICE)
        x[: sum(rows)] = there(np.concatenate([part.x for part in parts]))
        if isinstance(layer.shape, ConvShape):
            bias = there(BIAS) if layer.with_bias else None
            y = states.convolve(x, there(layer.weight), bias, cache, layer.shape, batch.states)  # type: ignore[attr-defined]
        else:
            given = [part.contiguous() for part in x.split([CHANNELS, VALUE_HEADS, VALUE_HEADS], dim=1)]
            y = states.delta(*given, there(RATES), there(SHIFTS), cache, layer.shape, batch.states)  # type: ignore[call-arg]
        return np.split(y[: sum(rows)].cpu().numpy().copy(), np.cumsum(rows)[:-1])

    return run


@every_layer
def test_by_definition(layer: StateLayer) -> None:
    x = numbers(9, layer.width, seed=1)
    assert relative_error(whole(on_gpu(layer), x), layer.definition(x)) < 2e-6


@every_kind
def test_bits_do_not_depend_on_how_rows_come(name: str) -> None:
    """One at a time, in chunks, with a draft that falls behind them, beside another request."""
    layer = LAYERS[name]
    run, x, other = on_gpu(layer), numbers(6, layer.width, seed=2), numbers(2, layer.width, seed=3)
    wanted, draft = whole(on_gpu(layer), x), numbers(1, layer.width, seed=4)
    for cuts in ((0, 1, 2, 3, 4, 6), (0, 3, 6)):
        slots = {end: end for end in range(1, 7)}
        for first, last in pairwise(cuts):
            rows = Part(np.concatenate([x[first:last], draft]), first, slots | {last + 1: 12})
            found = run([Part(other, 0, {2: 20}), rows])[1][: last - first]
            assert np.array_equal(found, wanted[first:last]), (cuts, first)


@every_kind
def test_each_path_of_a_tree_as_if_it_were_alone(name: str) -> None:
    layer = LAYERS[name]
    assert not differing(on_gpu(layer), on_gpu(layer), layer, [-1, 0, -1, 1])


@every_kind
def test_planted_fault_rows_follow_the_one_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a tree that begins with the state of its neighbour is seen by the test above."""
    real, layer = layout_module._states, LAYERS[name]

    def faulty(spans: Any, offsets: Any) -> Any:
        arrays = real(spans, offsets)
        if spans[0].parents:
            arrays["follows"][1:] = np.arange(len(arrays["follows"]) - 1)
        return arrays

    monkeypatch.setattr(layout_module, "_states", faulty)
    assert differing(on_gpu(layer), on_gpu(layer), layer, [-1, -1]) == [1]


def test_softplus_of_what_is_small_and_large() -> None:
    """What a state keeps over thousands of rows depends on the digits of a small one."""
    layer = LAYERS["delta"]
    x = numbers(4, layer.width, seed=1)
    x[:, CHANNELS : CHANNELS + VALUE_HEADS] = np.linspace(-25, 25, VALUE_HEADS)
    assert relative_error(whole(on_gpu(layer), x), layer.definition(x)) < 2e-6
