"""Small native programs: weights, chains of operations, and layers of attention with scattered blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from outrider.ops.cpu import extension
from tests.ops.oracle import Array, Attention, as_bfloat16, as_int8, spread_as_int8

native = extension.require()
INSTRUCTION_SETS: list[str] = native.instruction_sets()
BEST = INSTRUCTION_SETS[0]


@cache
def threads(count: int) -> Any:
    return native.Threads(count)


def program(instruction_set: str = BEST, count: int = 1) -> Any:
    return native.Program(threads(count), instruction_set)


def packed(format: str, rows: Any, inputs: int, bias: Array | None = None) -> Any:
    """A weight of rows as a file has them. The only place here that knows how one is packed."""
    return native.Matrix.pack(threads(2), format, [(rows, None)], inputs, bias=bias)


def matrix(values: Array, bias: Array | None = None) -> Any:
    """A float32 weight [outputs, inputs]."""
    return packed("F32", np.ascontiguousarray(values, np.float32).view(np.uint8), values.shape[1], bias)


def coarse_matrix(values: Array) -> tuple[Any, Array]:
    """The weight in 8 bits, and the values that it has then."""
    scales = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float32)
    codes = np.rint(values / scales)
    rows = np.concatenate([scales.view(np.uint8), codes.astype(np.int8).view(np.uint8)], axis=1)
    return packed("Q8_CHANNEL", rows, values.shape[1]), (codes * scales).astype(np.float64)


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """float32, normally distributed."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def chain(
    width: int, record: Callable[[Any, int], int], instruction_set: str = BEST, count: int = 1
) -> Callable[[Array], Array]:
    """A function [rows, width] -> [rows, out] that runs what `record` adds to an input."""
    p = program(instruction_set, count)
    p.output(record(p, p.input(width)))
    return lambda x: np.asarray(p.run([0] * len(x), [0], [len(x)], [[]], [0], np.ascontiguousarray(x)))


def row_depends_on_others(f: Callable[[Array], Array], x: Array) -> list[int]:
    """The numbers of rows, of 1 to all, with which some row of `f` changes in any bit."""
    whole, draw = f(x), np.random.default_rng(0)
    found = []
    for rows in range(1, len(x) + 1):
        start = int(draw.integers(0, len(x) - rows + 1))
        order = draw.permutation(len(x))[:rows]
        same = np.array_equal(f(x[start : start + rows]), whole[start : start + rows])
        if not (same and np.array_equal(f(x[order]), whole[order])):
            found.append(rows)
    return found


Kind = Literal["float32", "bfloat16", "int8"]
ROUNDING: dict[Kind, tuple[Callable[[Array], Array], ...]] = {
    "float32": (lambda x: x.astype(np.float32),),
    "bfloat16": (as_bfloat16,),
    "int8": (as_int8, spread_as_int8),
}
NAN: dict[Kind, Any] = {
    "float32": np.nan,
    "bfloat16": 0x7FC0,
    "int8": -1,
}  # four bytes of -1 are a scale of NaN
DTYPES: dict[Kind, Any] = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


def rounded(kind: Kind) -> tuple[Callable[[Array], Array], ...]:
    """How a cache of this type rounds K and V, and then K alone if that is another way."""
    return ROUNDING[kind]


def new_cache(
    attention: Attention, blocks: int, block_size: int, kind: Kind = "float32"
) -> tuple[Array, Array]:
    """Keys and values that are NaN until they are written."""
    shape, dim = (blocks, attention.kv_heads), attention.head_dim
    keys, values = ((dim, block_size), (block_size, dim))
    if kind == "int8":
        keys = values = (block_size * (dim + 4),)  # type: ignore[assignment]
    return tuple(np.full((*shape, *last), NAN[kind], DTYPES[kind]) for last in (keys, values))  # type: ignore[return-value]


def attend(p: Any, qkv: int, attention: Attention, keys: Any, values: Any, *, group: int = 0) -> int:
    """Record the layer, its rope with it."""
    a = attention
    rope = None if a.rope is None else p.rope(a.rope.inv_freq, a.rope.factor, a.rope.interleaved)
    return int(
        p.attend(
            qkv,
            keys,
            values,
            heads=a.heads,
            kv_heads=a.kv_heads,
            head_dim=a.head_dim,
            scale=a.scale,
            rope=rope,
            window=a.window,
            soft_cap=a.soft_cap,
            q_norm=a.q_norm,
            k_norm=a.k_norm,
            norm_eps=a.norm_eps,
            sinks=a.sinks,
            group=group,
        )
    )


@dataclass(frozen=True)
class Piece:
    """Positions start..end of a request, whose qkv is [length, width]."""

    request: int
    qkv: Array
    start: int
    end: int


@dataclass
class Layer:
    """One layer of attention, its blocks scattered over the cache. Those behind the window are given back, to
    whoever asks next, as soon as the request's next row does not see them."""

    attention: Attention
    block_size: int = 16
    kind: Kind = "float32"
    instruction_set: str = BEST
    threads: int = 1
    blocks: int = 64
    seed: int = 0
    tables: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys, self.values = new_cache(self.attention, self.blocks, self.block_size, self.kind)
        self.free = random.Random(self.seed).sample(range(self.blocks), self.blocks)
        self.program = program(self.instruction_set, self.threads)
        qkv = self.program.input(self.attention.width)
        self.program.output(attend(self.program, qkv, self.attention, self.keys, self.values))

    def run(self, pieces: Sequence[Piece]) -> list[Array]:
        """What each piece's rows have seen: [rows, heads * head_dim]."""
        for piece in pieces:
            self._make_room(piece)
        rows = [piece.end - piece.start for piece in pieces]
        x = np.concatenate([piece.qkv[piece.start : piece.end] for piece in pieces])
        tables = [[self.tables[piece.request]] for piece in pieces]
        starts = [piece.start for piece in pieces]
        out = self.program.run([0] * len(x), starts, rows, tables, [0] * len(rows), x)
        return np.split(out, np.cumsum(rows)[:-1])

    def whole(self, qkv: Array) -> Array:
        """All of a request at once, as request 0."""
        return self.run([Piece(0, qkv, 0, len(qkv))])[0]

    def _make_room(self, piece: Piece) -> None:
        table = self.tables.setdefault(piece.request, [])
        behind = max(0, piece.start - (self.attention.window or piece.start + 1) + 1) // self.block_size
        for at, block in enumerate(table[:behind]):
            if block >= 0:
                self.keys[block] = self.values[block] = NAN[self.kind]
                self.free.append(block)
                table[at] = -1
        while len(table) * self.block_size < piece.end:
            table.append(self.free.pop())
