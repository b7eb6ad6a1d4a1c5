"""`NativeBackend`: weights laid out for native kernels, and definitions that they replay."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from outrider.cache.pages import release_pages
from outrider.cache.store import LayerCache, StateCache
from outrider.errors import ModelError, OutriderError
from outrider.formats.format import Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight, neighbours
from outrider.machine.cores import default_threads
from outrider.ops.base import Cache, Definition, Facts, Forward
from outrider.ops.cpu import extension
from outrider.ops.cpu.chain import NativeChain
from outrider.ops.cpu.forward import NativeForward
from outrider.ops.lane import DraftChain, Words
from outrider.ops.shapes import AttentionShape, StateShape

LANES = 16
"""Outputs that kernels compute together; an expert's have to be a multiple."""
STORED: dict[str, DTypeLike] = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}
"""The types in which K and V lie: NumPy has no bfloat16."""


class NativeBackend:
    """Native kernels on the CPU. Activations are float32; see `outrider.ops.base.Backend`.

    linear, table: the formats that linear layers and tables of tokens become; None: they stay as they are
    stored. cache_dtype: one of `STORED`. instruction_set: 'auto' or one of
    `extension.require().instruction_sets()`. Raises ConfigError where the extension or the instruction set is
    missing.
    """

    def __init__(
        self,
        linear: Format | None = None,
        table: Format | None = None,
        *,
        cache_dtype: str,
        num_threads: int | None = None,
        instruction_set: str = "auto",
    ) -> None:
        self._native = extension.require()
        kernels = extension.instruction_set(instruction_set)
        threads = num_threads or default_threads()
        self._threads = self._native.Threads(threads)
        self._linear, self._table = linear, table
        self.facts = Facts(
            exact=True, device="cpu", kernels=kernels, threads=threads, cache_dtype=cache_dtype, lazy=True
        )
        self.weight_bytes = 0
        """The bytes of all that was packed, as it lies in memory."""

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> NativeBackend:
        """The same kernels on the same threads."""
        other = copy(self)
        other._linear, other._table, other.weight_bytes = linear, table, 0
        other.facts = replace(self.facts, cache_dtype=cache_dtype)
        return other

    def check_process(self) -> None:
        try:
            self._threads.check_process()
        except RuntimeError as error:
            raise OutriderError(str(error)) from None

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[Any, ...]:
        to = FORMATS["F32"] if float32 else self._linear
        packed, first = [], 0
        for parts in neighbours(weights, to):
            last = first + sum(part.shape[0] for part in parts)
            packed.append(self._pack(parts, None if bias is None else bias[first:last], to))
            first = last
        return tuple(packed)

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Any:
        formats = sorted({(self._linear or weight.format).name for weight in weights})
        if len(formats) > 1:
            raise ModelError(f"experts of one layer are {', '.join(formats)}; they have to be of one format")
        if any(weight.columns is not None for weight in weights):
            raise ModelError(
                "experts have inputs in an order of their own (act-order), which is not supported"
            )
        if weights[0].shape[0] % LANES:
            raise ModelError(
                f"experts have {weights[0].shape[0]} outputs; they have to be a multiple of {LANES}"
            )
        return self._pack(weights, bias, self._linear)

    def table(self, weight: Weight) -> Any:
        return self._pack((weight,), None, self._table)

    def tied(self, table: Any) -> tuple[Any, ...]:
        return (table,)

    def as_one(self, layers: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        return tuple(matrix for layer in layers for matrix in layer)

    def vector(self, values: Floats) -> Floats:
        return np.ascontiguousarray(values, dtype=np.float32)

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """keys: [blocks, kv_heads, head_dim, block_size]; values: the last two the other way round. With 8
        bits these are the first numbers of [blocks, kv_heads, size], and the others are the bytes of
        float32 [block_size], by which the numbers of each position are multiplied."""
        name = self.facts.cache_dtype

        def room(shape: AttentionShape, *last: int) -> NDArray[Any]:
            size = (block_size * self.facts.head_bytes(shape.head_dim),)
            return _untouched((blocks, shape.kv_heads, *(size if name == "int8" else last)), STORED[name])

        return tuple(
            LayerCache(keys=room(s, s.head_dim, block_size), values=room(s, block_size, s.head_dim))
            for s in shapes
        )

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        """values: [slots, *shape.state]."""
        return tuple(StateCache(_untouched((slots, *shape.state), np.float32)) for shape in shapes)

    def release(self, values: NDArray[Any], first: int) -> None:
        release_pages(values[first:])

    def own(self, kept: Floats) -> Floats:
        whole = kept.base
        mostly = whole is None or kept.size * 2 >= whole.size  # each pass has an array of its own
        return kept if mostly and kept.flags.c_contiguous else kept.copy()

    def join(self, kept: Sequence[Floats]) -> Floats:
        return np.concatenate(kept)

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> NativeForward:
        assert self.facts.kernels is not None
        return NativeForward(self._threads, self.facts.kernels, definition, cache)

    def chain(self, first: Forward, then: Forward, words: Words, *, in_place: bool = False) -> DraftChain:
        assert isinstance(first, NativeForward)
        assert isinstance(then, NativeForward)
        return NativeChain(first, then, words, in_place=in_place)

    def _pack(self, parts: Sequence[Weight], bias: Floats | None, to: Format | None) -> Any:
        """One below the other, in the format `to`; None: in their own, which is the same."""
        first = parts[0]
        packed = self._native.Matrix.pack(
            self._threads,
            (to or first.format).name,
            [(part.data, part.order) for part in parts],
            first.inputs,
            columns=first.columns,
            bias=bias,
            stored=[part.format.name for part in parts],
        )
        self.weight_bytes += packed.nbytes
        return packed


def _untouched(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An array whose pages take memory when they are written, of all NUMA nodes in turn. NumPy's own would
    ask for huge pages, of which the first byte takes two megabytes."""
    size = max(1, prod(shape) * np.dtype(dtype).itemsize)
    # What is shared with other processes, as Python has it, would not be freed by `release`.
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    memory = mmap.mmap(-1, size, flags=private) if private else mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    values = np.frombuffer(memory, dtype, prod(shape)).reshape(shape)
    extension.require().spread(values)
    return values
