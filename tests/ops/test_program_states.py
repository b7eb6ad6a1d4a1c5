"""Layers that keep a state: against their definition in float64, and bit for bit however rows come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.cache.store import StateCache
from outrider.ops.shapes import ConvShape, DeltaShape, StateShape
from outrider.ops.span import Span
from outrider.ops.torch import states as torch_states
from outrider.ops.torch.batch import Batch
from tests.ops.oracle import Array, relative_error
from tests.ops.programs import BEST, INSTRUCTION_SETS, matrix, numbers, program

SLOTS, UNUSED = 24, 7.5
every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM = 2, 6, 20, 33
CHANNELS = 2 * KEY_HEADS * KEY_DIM + VALUE_HEADS * VALUE_DIM
GATES = 2 * VALUE_HEADS
RATES, SHIFTS = -np.exp(numbers(VALUE_HEADS, seed=5, scale=0.3)), numbers(VALUE_HEADS, seed=6)
WEIGHT, BIAS = numbers(CHANNELS, 4, seed=7, scale=0.5), numbers(CHANNELS, seed=8)


@dataclass(frozen=True)
class Part:
    """Some rows of a request: where they begin, the slots before and after rows of it, and the tree at their
    end."""

    x: Array
    start: int
    slots: dict[int, int]
    parents: Sequence[int] = ()

    @property
    def span(self) -> Span:
        return Span([0] * len(self.x), self.start, (), 0, self.slots, self.parents)


Run = Callable[[Sequence[Part]], list[Array]]


class StateLayer:
    """A layer with states, in a native program or in PyTorch, and what it computes by its definition."""

    def __init__(self, shape: StateShape, width: int, *, with_bias: bool = False) -> None:
        self.shape, self.width, self.with_bias = shape, width, with_bias

    def definition(self, x: Array) -> Array:
        """What it computes for all rows of one request."""
        raise NotImplementedError

    def record(self, p: Any, values: Any) -> int:
        raise NotImplementedError

    def torch(self, x: torch.Tensor, cache: StateCache, batch: Batch) -> torch.Tensor:
        raise NotImplementedError

    def native(self, instruction_set: str = BEST, threads: int = 1) -> Run:
        values = np.full((SLOTS, *self.shape.state), UNUSED, np.float32)
        p = program(instruction_set, threads)
        p.output(self.record(p, values))

        def run(parts: Sequence[Part]) -> list[Array]:
            rows = [len(part.x) for part in parts]
            before = [-1 if part.span.state is None else part.span.state for part in parts]
            after = [[part.span.new_states.get(row, -1) for row in range(len(part.x))] for part in parts]
            x = np.ascontiguousarray(np.concatenate([part.x for part in parts]))
            starts = [part.start for part in parts]
            tables: list[Any] = [[] for _ in parts]
            trees = [part.parents for part in parts]
            y = p.run([0] * len(x), starts, rows, tables, rows, x, None, before, after, trees)
            return np.split(np.array(y), np.cumsum(rows)[:-1])

        return run

    def in_torch(self) -> Run:
        cache = StateCache(torch.full((SLOTS, *self.shape.state), UNUSED))

        def run(parts: Sequence[Part]) -> list[Array]:
            rows = [len(part.x) for part in parts]
            x = torch.from_numpy(np.concatenate([part.x for part in parts]))
            batch = Batch.of([part.span for part in parts], 1, torch.device("cpu"))
            return np.split(self.torch(x, cache, batch).numpy(), np.cumsum(rows)[:-1])

        return run


class Convolution(StateLayer):
    def __init__(self, kernel: int, *, silu: bool, with_bias: bool) -> None:
        super().__init__(ConvShape(CHANNELS, kernel, silu), CHANNELS, with_bias=with_bias)
        self.kernel, self.silu = kernel, silu
        self.weight = np.ascontiguousarray(WEIGHT[:, :kernel])

    def definition(self, x: Array) -> Array:
        seen = np.concatenate([np.zeros((self.kernel - 1, CHANNELS)), x.astype(np.float64)])
        y = np.array([(seen[row : row + self.kernel] * self.weight.T).sum(0) for row in range(len(x))])
        y = y + BIAS if self.with_bias else y
        return y / (1 + np.exp(-y)) if self.silu else y

    def record(self, p: Any, values: Any) -> int:
        bias = BIAS if self.with_bias else None
        return int(p.convolve(p.input(CHANNELS), self.weight, bias, values, silu=self.silu))

    def torch(self, x: torch.Tensor, cache: StateCache, batch: Batch) -> torch.Tensor:
        assert isinstance(self.shape, ConvShape)
        bias = torch.from_numpy(BIAS) if self.with_bias else None
        return torch_states.convolve(x, torch.from_numpy(self.weight), bias, cache, self.shape, batch)


class Delta(StateLayer):
    """q, k, v and both gates lie side by side in the input; native programs take them apart by matrices."""

    def __init__(self, *, tiled: bool) -> None:
        self.tiled = tiled
        shape = DeltaShape(KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, tiled)
        super().__init__(shape, CHANNELS + GATES)

    def definition(self, x: Array) -> Array:
        keys = KEY_HEADS * KEY_DIM
        outputs = []
        state = np.zeros((VALUE_HEADS, KEY_DIM, VALUE_DIM))
        for row in x.astype(np.float64):
            q, k, v, forget, write = np.split(
                row, np.cumsum([keys, keys, VALUE_HEADS * VALUE_DIM, VALUE_HEADS])
            )
            y = []
            for head in range(VALUE_HEADS):
                of = head % KEY_HEADS if self.tiled else head * KEY_HEADS // VALUE_HEADS
                own = slice(of * KEY_DIM, (of + 1) * KEY_DIM)
                unit_q, unit_k = (one[own] / np.sqrt((one[own] ** 2).sum() + 1e-6) for one in (q, k))
                state[head] *= np.exp(RATES[head] * np.log1p(np.exp(forget[head] + SHIFTS[head])))
                found = unit_k @ state[head]
                wanted = v[head * VALUE_DIM : (head + 1) * VALUE_DIM]
                state[head] += np.outer(unit_k, (wanted - found) / (1 + np.exp(-write[head])))
                y.append(unit_q @ state[head] / np.sqrt(KEY_DIM))
            outputs.append(np.concatenate(y))
        return np.array(outputs)

    def record(self, p: Any, values: Any) -> int:
        x, first = p.input(self.width), 0
        parts = []
        for size in (CHANNELS, VALUE_HEADS, VALUE_HEADS):
            taken = np.zeros((size, self.width), np.float32)
            taken[np.arange(size), first + np.arange(size)] = 1
            parts.append(p.linear(x, [matrix(taken)], None, 1.0))
            first += size
        return int(
            p.delta(
                *parts,
                RATES.astype(np.float32),
                SHIFTS,
                values,
                key_heads=KEY_HEADS,
                value_heads=VALUE_HEADS,
                key_dim=KEY_DIM,
                value_dim=VALUE_DIM,
                tiled=self.tiled,
            )
        )

    def torch(self, x: torch.Tensor, cache: StateCache, batch: Batch) -> torch.Tensor:
        assert isinstance(self.shape, DeltaShape)
        qkv, forget, write = torch.split(x, [CHANNELS, VALUE_HEADS, VALUE_HEADS], dim=1)
        rates, shifts = (torch.from_numpy(np.asarray(v, np.float32)) for v in (RATES, SHIFTS))
        return torch_states.delta(qkv, forget, write, rates, shifts, cache, self.shape, batch)


LAYERS: dict[str, StateLayer] = {
    "convolution": Convolution(4, silu=True, with_bias=False),
    "convolution with a bias": Convolution(3, silu=False, with_bias=True),
    "delta": Delta(tiled=False),
    "tiled delta": Delta(tiled=True),
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def whole(run: Run, x: Array) -> Array:
    return run([Part(x, 0, {})])[0]


@every_layer
@every_set
def test_native_against_the_definition(layer: StateLayer, instruction_set: str) -> None:
    x = numbers(37, layer.width, seed=1)
    assert relative_error(whole(layer.native(instruction_set), x), layer.definition(x)) < 2e-6


@every_layer
def test_torch_against_the_definition(layer: StateLayer) -> None:
    x = numbers(37, layer.width, seed=1)
    assert relative_error(whole(layer.in_torch(), x), layer.definition(x)) < 2e-6


@every_layer
@every_set
@pytest.mark.parametrize("threads", [1, 2])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_bits_do_not_depend_on_how_rows_come(
    layer: StateLayer, instruction_set: str, threads: int, data: st.DataObject
) -> None:
    """Two requests are cut anywhere, in passes alone or together, with drafts behind them that fall."""
    requests = [numbers(data.draw(st.integers(1, 9)), layer.width, seed=seed) for seed in (2, 3)]
    run, alone = layer.native(instruction_set, threads), layer.native(instruction_set)
    expected = [whole(alone, x) for x in requests]
    free, done, slots = data.draw(st.permutations(range(SLOTS))), [0, 0], [dict[int, int](), dict[int, int]()]
    while unfinished := [i for i in (0, 1) if done[i] < len(requests[i])]:
        parts, taken = [], []
        for i in data.draw(st.permutations(unfinished))[: data.draw(st.integers(1, 2))]:
            count = data.draw(st.integers(1, len(requests[i]) - done[i]))
            draft = numbers(data.draw(st.integers(0, 3)), layer.width, seed=4)
            rows = np.concatenate([requests[i][done[i] : done[i] + count], draft])
            ends = range(done[i] + count, done[i] + len(rows) + 1)
            slots[i] |= {end: free.pop() for end in ends}
            parts.append(Part(rows, done[i], slots[i]))
            taken.append((i, count))
        for (i, count), y in zip(taken, run(parts), strict=True):
            assert np.array_equal(y[:count], expected[i][done[i] : done[i] + count])
            done[i] += count
            free.extend(slot for end, slot in slots[i].items() if end != done[i])
            slots[i] = {done[i]: slots[i][done[i]]}


@every_layer
def test_a_state_of_another_row_gives_other_numbers(layer: StateLayer) -> None:
    """What the tests above would miss if rows did not depend on states."""
    run, x = layer.native(), numbers(6, layer.width, seed=1)
    expected = run([Part(x, 0, {3: 5, 4: 6})])[0]
    assert np.array_equal(run([Part(x[4:], 4, {4: 6})])[0], expected[4:])
    assert not np.array_equal(run([Part(x[4:], 4, {4: 5})])[0], expected[4:])


@pytest.mark.parametrize(
    ("start", "before", "after", "message"),
    [
        (0, 3, [-1], "begins at 0 has none"),
        (2, -1, [-1], "begins at 2 needs one"),
        (2, SLOTS, [-1], "there are 24"),
        (2, 3, [SLOTS], "names slot 24"),
        (2, 3, [3], "names slot 3"),
        (2, 3, [-2], "names slot -2"),
        (2, 3, [1, 2], "has 2 values; the span has 1 row"),
    ],
)
def test_slots_that_there_are_not(start: int, before: int, after: list[int], message: str) -> None:
    layer = LAYERS["convolution"]
    values = np.zeros((SLOTS, *layer.shape.state), np.float32)
    p = program()
    p.output(layer.record(p, values))
    with pytest.raises(ValueError, match=message):
        p.run([0], [start], [1], [[]], [1], numbers(1, CHANNELS), None, [before], [after])
    assert not values.any()
