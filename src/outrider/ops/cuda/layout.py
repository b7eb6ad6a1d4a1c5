"""The rows of a pass as arrays on the device, padded to a few sizes.

All that changes from pass to pass is in these arrays and in a few sizes (rows, rows with logits, pieces,
splits), so that a pass of the same sizes is the same work on other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.cuda.device import upload
from outrider.ops.span import Span

PIECE = 8  # rows of a request that share the loads of its keys
SPLIT = 512  # positions; their partial sums are merged in order
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
    """rows, logit_rows: real ones; arrays go on with padding, which is computed and not read.

    tokens, positions: int32 [padded rows], a row that pads has position -1. slots: for each group of layers
    int32 [padded rows], where K and V go, or -1. tables: for each group int32 [requests, blocks]. selected:
    int32 [padded rows with logits]. pieces: int32 [pieces, 5], the first row and how many, the request, the
    place where its tree begins, and where in `paths` the row's path begins. starts: the first row of each
    piece. splits: of the longest context. states: see `StateRows`.
    """

    rows: int
    logit_rows: int
    tokens: Tensor
    positions: Tensor
    slots: tuple[Tensor, ...]
    tables: tuple[Tensor, ...]
    selected: Tensor
    pieces: Tensor
    paths: Tensor
    starts: tuple[int, ...]
    splits: int
    block_size: int
    states: StateRows

    @classmethod
    def of(
        cls,
        spans: Sequence[Span],
        block_size: int,
        device: torch.device,
        tokens: Tensor | None = None,
    ) -> GpuBatch:
        """Lay the spans out one after the other. tokens: int32, those of the rows where they are on the
        device already."""
        arrays, starts, splits = _arrays(spans, block_size)
        rows, logit_rows = (
            sum(counts) for counts in zip(*((len(s.tokens), s.logit_rows) for s in spans), strict=True)
        )
        there = upload(arrays, device)
        given = there["tokens"]
        if tokens is not None:
            given[:rows] = tokens
        groups = range(len(spans[0].tables))
        return cls(
            rows,
            logit_rows,
            given,
            there["positions"],
            tuple(there[f"slots {group}"] for group in groups),
            tuple(there[f"tables {group}"] for group in groups),
            there["selected"],
            there["pieces"],
            there["paths"],
            starts,
            splits,
            block_size,
            StateRows(*(there[name] for name in ("follows", "begins", "ends", "walks"))),
        )


def padded(count: int) -> int:
    """The size that so many are padded to: a power of two up to 64, beyond that whole 64s."""
    return 1 << max(0, count - 1).bit_length() if count <= 64 else -(-count // 64) * 64


def _arrays(spans: Sequence[Span], block_size: int) -> tuple[dict[str, Ints], tuple[int, ...], int]:
    offsets = [0, *accumulate(len(span.tokens) for span in spans)]
    arrays = {
        "tokens": _filled(chain.from_iterable(span.tokens for span in spans), 0),
        "positions": _filled(chain.from_iterable(span.positions for span in spans), -1),
        "selected": _filled(
            chain.from_iterable(
                range(end - span.logit_rows, end) for span, end in zip(spans, offsets[1:], strict=True)
            ),
            0,
        ),
    }
    for group, tables in enumerate(zip(*(span.tables for span in spans), strict=True)):
        arrays[f"tables {group}"] = _tables(tables)
        arrays[f"slots {group}"] = _filled(
            chain.from_iterable(
                _slots(span, table, block_size) for span, table in zip(spans, tables, strict=True)
            ),
            -1,
        )
    pieces, paths = _pieces(spans, offsets)
    arrays["pieces"] = _rows_of(pieces, 5)
    arrays |= _states(spans, offsets)
    arrays["paths"] = _filled(paths, 0)
    longest = max(max(span.positions) + 1 for span in spans)
    return arrays, tuple(piece[0] for piece in pieces), padded(-(-longest // SPLIT))


def _filled(values: object, padding: int) -> Ints:
    numbers = np.fromiter(values, np.int32)  # type: ignore[call-overload]
    array = np.full(max(1, padded(len(numbers))), padding, np.int32)
    array[: len(numbers)] = numbers
    return array


def _rows_of(values: Sequence[Sequence[int]], width: int) -> Ints:
    array = np.zeros((padded(len(values)), width), np.int32)
    array[: len(values)] = values
    return array


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


def _tables(tables: Sequence[Sequence[int]]) -> Ints:
    width = padded(max(1, *(len(table) for table in tables)))
    array = np.full((padded(len(tables)), width), -1, np.int32)
    for row, table in zip(array, tables, strict=False):
        row[: len(table)] = table
    return array


def _slots(span: Span, table: Sequence[int], block_size: int) -> list[int]:
    return [
        table[place // block_size] * block_size + place % block_size for place in range(span.start, span.end)
    ]


def _pieces(spans: Sequence[Span], offsets: Sequence[int]) -> tuple[list[tuple[int, ...]], list[int]]:
    pieces, paths = list[tuple[int, ...]](), list[int]()
    for request, (span, first) in enumerate(zip(spans, offsets, strict=False)):
        trunk = len(span.tokens) - len(span.parents)
        for start in range(0, trunk, PIECE):
            pieces.append((first + start, min(PIECE, trunk - start), request, STRAIGHT, 0))
        branch = span.start + trunk
        for number, path in enumerate(_paths(span.parents)):
            pieces.append((first + trunk + number, 1, request, branch, len(paths)))
            paths += [branch + node for node in path]
    return pieces, paths


def _paths(parents: Sequence[int]) -> list[list[int]]:
    """The nodes that each node of a tree sees, from the root's child down to itself."""
    paths = list[list[int]]()
    for number, parent in enumerate(parents):
        paths.append([*(paths[parent] if parent >= 0 else ()), number])
    return paths
