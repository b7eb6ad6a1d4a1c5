"""The rows of a pass as arrays, padded to a few sizes.

All that changes from pass to pass is in these arrays and in their sizes, so that a pass with arrays of the
same sizes is the same work on other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.span import Span

PIECE = 8  # rows of a request that share the loads of its keys
SPLIT = 512  # positions; their partial sums are merged in order
SCRATCH = 2**11  # rows times splits whose partial sums stand side by side, unless one piece needs more
STRAIGHT = 2**30  # a place that no row reaches: where the tree of a span without one begins
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class StateRows:
    """What layers that keep states are told of the rows: int32 [padded rows], and of the requests.

    follows: the row that a row follows, or -1. begins, ends: the slots of the state before the request's
    first row, and of that after the row; -1 where it is zero, or not kept. walks: int32 [requests, 2], the
    first row and how many.
    """

    follows: Tensor
    begins: Tensor
    ends: Tensor
    walks: Tensor


@dataclass(frozen=True)
class GpuBatch:
    """The arrays on the device. They go on with padding, which is computed and not read.

    tokens, positions: int32 [padded rows], a row that pads has position -1. slots: for each group of layers
    int32 [padded rows], where K and V go, or -1. tables: for each group int32 [requests, blocks]. selected:
    int32 [padded rows with logits]. pieces: int32 [runs, pieces, 5], the first row and how many, the request,
    the place where its tree begins, and where in `paths` the row's path begins; a run has the pieces of
    `run_rows(splits)` rows. splits: of the longest context. states: see `StateRows`.
    """

    tokens: Tensor
    positions: Tensor
    slots: tuple[Tensor, ...]
    tables: tuple[Tensor, ...]
    selected: Tensor
    pieces: Tensor
    paths: Tensor
    states: StateRows
    splits: int
    block_size: int


@dataclass(frozen=True)
class RowLayout:
    """The arrays on the host. rows, logit_rows: those that there are."""

    arrays: Mapping[str, Ints]
    rows: int
    logit_rows: int
    splits: int
    block_size: int

    @classmethod
    def of(cls, spans: Sequence[Span], block_size: int) -> RowLayout:
        """Lay the spans out one after the other."""
        offsets = [0, *accumulate(len(span.tokens) for span in spans)]
        selected = [
            row
            for span, end in zip(spans, offsets[1:], strict=True)
            for row in range(end - span.logit_rows, end)
        ]
        splits = padded(-(-max(span.end for span in spans) // SPLIT))
        arrays = {
            "tokens": _filled(chain.from_iterable(span.tokens for span in spans), 0),
            "positions": _filled(chain.from_iterable(span.positions for span in spans), -1),
            "selected": _filled(selected, 0),
            **_pieces(spans, offsets, run_rows(splits)),
            **_states(spans, offsets),
        }
        for group, tables in enumerate(zip(*(span.tables for span in spans), strict=True)):
            arrays[f"tables {group}"] = _tables(tables, -(-splits * SPLIT // block_size))
            arrays[f"slots {group}"] = _filled(_slots(spans, tables, block_size), -1)
        return cls(arrays, offsets[-1], len(selected), splits, block_size)

    def batch(self, there: Mapping[str, Tensor]) -> GpuBatch:
        """there: arrays of these names and shapes on the device."""
        groups = sum(name.startswith("tables") for name in self.arrays)
        return GpuBatch(
            there["tokens"],
            there["positions"],
            tuple(there[f"slots {group}"] for group in range(groups)),
            tuple(there[f"tables {group}"] for group in range(groups)),
            there["selected"],
            there["pieces"],
            there["paths"],
            StateRows(*(there[name] for name in ("follows", "begins", "ends", "walks"))),
            self.splits,
            self.block_size,
        )


def padded(count: int) -> int:
    """The size that so many are padded to: a power of two up to 64, beyond that whole 64s."""
    return 1 << max(0, count - 1).bit_length() if count <= 64 else -(-count // 64) * 64


def run_rows(splits: int) -> int:
    """Rows that attention computes at a time, in whole pieces."""
    return max(1, SCRATCH // splits // PIECE) * PIECE


def _filled(values: object, padding: int) -> Ints:
    numbers = np.fromiter(values, np.int32)  # type: ignore[call-overload]
    array = np.full(padded(len(numbers)), padding, np.int32)
    array[: len(numbers)] = numbers
    return array


def _rows_of(values: Sequence[Sequence[int]], width: int) -> Ints:
    array = np.zeros((padded(len(values)), width), np.int32)
    array[: len(values)] = values
    return array


def _tables(tables: Sequence[Sequence[int]], width: int) -> Ints:
    array = np.full((padded(len(tables)), width), -1, np.int32)
    for row, table in zip(array, tables, strict=False):
        row[: len(table)] = table[:width]
    return array


def _slots(spans: Sequence[Span], tables: Sequence[Sequence[int]], block_size: int) -> list[int]:
    return [
        table[place // block_size] * block_size + place % block_size
        for span, table in zip(spans, tables, strict=True)
        for place in range(span.start, span.end)
    ]


def _states(spans: Sequence[Span], offsets: Sequence[int]) -> dict[str, Ints]:
    follows, begins, ends = list[int](), list[int](), list[int]()
    for span, first in zip(spans, offsets, strict=False):
        follows += [first + before if before >= 0 else -1 for before in span.follows]
        begins += [span.states.get(span.start, -1) if span.start else -1] * len(span.tokens)
        after = span.new_states
        ends += [after.get(row, -1) for row in range(len(span.tokens))]
    walks = [(first, len(span.tokens)) for span, first in zip(spans, offsets, strict=False)]
    each = {"follows": follows, "begins": begins, "ends": ends}
    return {name: _filled(values, -1) for name, values in each.items()} | {"walks": _rows_of(walks, 2)}


def _pieces(spans: Sequence[Span], offsets: Sequence[int], at_once: int) -> dict[str, Ints]:
    """Pieces run by run. No piece lies in two runs."""
    runs = [list[tuple[int, ...]]() for _ in range(-(-padded(offsets[-1]) // at_once))]
    paths = list[int]()
    for request, (span, first) in enumerate(zip(spans, offsets, strict=False)):
        trunk = first + len(span.tokens) - len(span.parents)
        row = first
        while row < trunk:
            count = min(PIECE, trunk - row, at_once - row % at_once)
            runs[row // at_once].append((row, count, request, STRAIGHT, 0))
            row += count
        branch = span.start + trunk - first
        for row, path in enumerate(_paths(span.parents), start=trunk):
            runs[row // at_once].append((row, 1, request, branch, len(paths)))
            paths += [branch + node for node in path]
    pieces = np.zeros((len(runs), padded(max(map(len, runs))), 5), np.int32)
    for there, run in zip(pieces, runs, strict=True):
        there[: len(run)] = np.reshape(run, (-1, 5))
    return {"pieces": pieces, "paths": _filled(paths, 0)}


def _paths(parents: Sequence[int]) -> list[list[int]]:
    """The nodes that each node of a tree sees, from the root's child down to itself."""
    paths = list[list[int]]()
    for number, parent in enumerate(parents):
        paths.append([*(paths[parent] if parent >= 0 else ()), number])
    return paths
