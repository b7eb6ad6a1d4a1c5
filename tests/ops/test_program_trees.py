"""Trees of rows in native programs: each path as if it were alone, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.oracle import Array, Attention, Rope
from tests.ops.programs import INSTRUCTION_SETS, Kind, attend, new_cache, numbers, program

every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
ROPE = Rope(np.float32(0.3) ** np.arange(8, dtype=np.float32), 1.0, False)
PLAIN = Attention(4, 2, 16, 0.25, ROPE)
LAYERS = {
    "plain": PLAIN,
    "window": replace(PLAIN, window=9),
    "window of one": replace(PLAIN, window=1),
    "soft cap and sinks": replace(PLAIN, soft_cap=3.0, sinks=np.array([-1, 0, 1, 2], np.float32)),
}
BLOCKS = 40

Tree = list[int]
"""Parents, of each node an earlier one or -1."""


class TreeLayer:
    """One layer of attention and its cache, with the blocks of one request in any order."""

    def __init__(
        self, attention: Attention, instruction_set: str, size: int, kind: Kind = "float32", threads: int = 2
    ) -> None:
        self.program = program(instruction_set, threads)
        keys, values = new_cache(attention, BLOCKS, size, kind)
        self.program.output(
            attend(self.program, self.program.input(attention.width), attention, keys, values)
        )
        self.table = random.Random(size).sample(range(BLOCKS), BLOCKS)

    def run(self, start: int, x: Array, parents: Sequence[int] = ()) -> Array:
        trees = [parents] if parents else []
        rows = self.program.run(
            [0] * len(x), [start], [len(x)], [[self.table]], [0], x, None, None, None, trees
        )
        return np.asarray(rows)

    def move(self, places: Sequence[int], to: int) -> None:
        self.program.move([self.table], places, range(to, to + len(places)))


def path_to(node: int, parents: Tree) -> list[int]:
    found = []
    while node >= 0:
        found.append(node)
        node = parents[node]
    return found[::-1]


@st.composite
def trees(draw: Any) -> Tree:
    size = draw(st.integers(1, 12))
    return [draw(st.integers(-1, number - 1)) for number in range(size)]


@every_set
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    parents=trees(),
    name=st.sampled_from(sorted(LAYERS)),
    kind=st.sampled_from(["float32", "bfloat16", "int8"]),
    context=st.integers(0, 300),
    trunk=st.integers(1, 20),
    size=st.sampled_from([8, 16, 32]),
)
def test_each_path_as_if_it_were_alone(
    instruction_set: str, parents: Tree, name: str, kind: Kind, context: int, trunk: int, size: int
) -> None:
    context = min(context, BLOCKS * size - trunk - len(parents))
    attention = LAYERS[name]
    x = numbers(context + trunk + len(parents), attention.width, seed=len(parents))
    known, nodes = x[: context + trunk], x[context + trunk :]
    layer, alone = (TreeLayer(attention, instruction_set, size, kind) for _ in range(2))
    if context:
        layer.run(0, known[:context])
    rows = layer.run(context, x[context:], parents)[trunk:]
    for node in range(len(parents)):
        path = path_to(node, parents)
        chain = alone.run(0, np.concatenate([known, nodes[path]]))
        assert np.array_equal(rows[node], chain[-1]), (node, path)


@every_set
@settings(max_examples=15, deadline=None, derandomize=True)
@given(parents=trees(), kind=st.sampled_from(["float32", "bfloat16", "int8"]), data=st.data())
def test_a_path_that_is_kept_is_as_a_chain(
    instruction_set: str, parents: Tree, kind: Kind, data: st.DataObject
) -> None:
    path = path_to(data.draw(st.integers(0, len(parents) - 1)), parents)
    x, following = numbers(30 + len(parents), PLAIN.width, seed=3), numbers(4, PLAIN.width, seed=4)
    layer, alone = (TreeLayer(PLAIN, instruction_set, 8, kind) for _ in range(2))
    layer.run(0, x, parents)
    layer.move([30 + node for node in path], 30)
    chain = np.concatenate([x[:30], x[30:][path]])
    alone.run(0, chain)
    assert np.array_equal(layer.run(len(chain), following), alone.run(len(chain), following))


@every_set
def test_the_oracle_notices_a_wrong_parent(instruction_set: str) -> None:
    x = numbers(24, PLAIN.width, seed=5)
    right, wrong = (
        TreeLayer(PLAIN, instruction_set, 8).run(0, x, parents) for parents in ([-1, 0, 0], [-1, 0, 1])
    )
    assert np.array_equal(right[:-1], wrong[:-1])
    assert not np.array_equal(right[-1], wrong[-1])


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([0], "holds 0 at 0; it has to be -1, or an earlier row"),
        ([-2], "holds -2 at 0"),
        ([-1, 5], "holds 5 at 1"),
        ([-1] * 3, "one has to come before the tree"),
    ],
)
def test_trees_that_are_none(parents: Tree, message: str) -> None:
    layer = TreeLayer(PLAIN, INSTRUCTION_SETS[0], 8)
    with pytest.raises(ValueError, match=message):
        layer.run(0, numbers(3, PLAIN.width), parents)


@pytest.mark.parametrize(("places", "to"), [([-1], 0), ([10**6], 0), ([0], 10**6)])
def test_moves_that_lead_nowhere(places: list[int], to: int) -> None:
    with pytest.raises(ValueError, match="has no block in table 0"):
        TreeLayer(PLAIN, INSTRUCTION_SETS[0], 8).move(places, to)
