"""Trees of rows in layers that keep a state: each path as if alone, in native programs bit for bit."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings

from tests import planted
from tests.ops.oracle import Array
from tests.ops.programs import INSTRUCTION_SETS, numbers, program
from tests.ops.test_program_states import CHANNELS, LAYERS, SLOTS, Part, Run, StateLayer, every_layer
from tests.ops.test_program_trees import Tree, path_to, trees

KNOWN, TRUNK = 5, 2
"""Rows of a pass before the one with the tree, and rows in front of the tree."""
FIRST = KNOWN + TRUNK
every_backend = pytest.mark.parametrize("backend", [*INSTRUCTION_SETS, "torch"])


class Branched(NamedTuple):
    """A tree that was computed: the inputs of all rows, the outputs of its own, and the slots."""

    x: Array
    rows: Array
    slots: dict[int, int]


def ready(layer: StateLayer, backend: str) -> Run:
    return layer.in_torch() if backend == "torch" else layer.native(backend, threads=2)


def branched(run: Run, layer: StateLayer, parents: Tree) -> Branched:
    x = numbers(FIRST + len(parents), layer.width, seed=len(parents))
    ends = range(KNOWN, len(x) + 1)
    slots = dict(zip(ends, random.Random(1).sample(range(SLOTS), len(ends)), strict=True))
    run([Part(x[:KNOWN], 0, {KNOWN: slots[KNOWN]})])
    rows = run([Part(x[KNOWN:], KNOWN, slots, parents)])[0]
    return Branched(x, rows[TRUNK:], slots)


def differing(run: Run, alone: Run, layer: StateLayer, parents: Tree, *, error: float = 0.0) -> list[int]:
    """The nodes that come out otherwise than at the end of a chain, in their own row or the one behind it."""
    x, rows, slots = branched(run, layer, parents)
    following, found = numbers(1, layer.width, seed=99), []
    for node in range(len(parents)):
        path = [FIRST + each for each in path_to(node, parents)]
        chain = alone([Part(np.concatenate([x[:FIRST], x[path], following]), 0, {})])[0]
        end = FIRST + len(path)
        behind = run([Part(following, end, {end: slots[FIRST + node + 1]})])[0]
        if np.abs(np.stack([rows[node], behind[0]]) - chain[-2:]).max() > error:
            found.append(node)
    return found


@every_layer
@every_backend
@settings(max_examples=12, deadline=None, derandomize=True)
@given(parents=trees())
def test_each_path_as_if_it_were_alone(layer: StateLayer, backend: str, parents: Tree) -> None:
    error = 1e-5 if backend == "torch" else 0.0
    assert not differing(ready(layer, backend), ready(layer, backend), layer, parents, error=error)


@every_layer
@every_backend
def test_a_row_depends_on_the_one_that_it_follows(layer: StateLayer, backend: str) -> None:
    """Otherwise the test above would show nothing."""
    right, wrong = (branched(ready(layer, backend), layer, [-1, 0, last]).rows for last in (0, 1))
    assert np.array_equal(right[:-1], wrong[:-1])
    assert np.abs(right[-1] - wrong[-1]).max() > 0.01


@every_layer
def test_the_state_of_a_neighbour_is_noticed(layer: StateLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    run, alone = layer.in_torch(), layer.native()
    planted.begin_with_neighbours(monkeypatch)
    assert differing(run, alone, layer, [-1, 0, -1], error=1e-3) == [2]


def test_a_state_that_has_no_slot() -> None:
    layer, p, x = LAYERS["convolution"], program(), numbers(3, CHANNELS)
    values = np.zeros((4, *layer.shape.state), np.float32)
    p.output(layer.record(p, values))
    with pytest.raises(ValueError, match="new_states of span 0 has no slot for row 0, which row 2 follows"):
        p.run([0] * 3, [0], [3], [[]], [3], x, None, [-1], [[-1, 1, 2]], [[-1, -1]])
    assert not values.any()
