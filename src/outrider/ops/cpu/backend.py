"""`NativeBackend`: a definition is recorded once and replayed by native code in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outrider.cache.store import LayerCache, StateCache
from outrider.errors import ModelError, OutriderError
from outrider.formats.convert import convert
from outrider.formats.format import Floats
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight, neighbours
from outrider.ops.base import (
    Activation,
    AttentionShape,
    Cache,
    ConvShape,
    Definition,
    DeltaShape,
    Forward,
    GateActivation,
    HeadVectors,
    Passed,
    Routing,
    StateShape,
)
from outrider.ops.batch import Span
from outrider.ops.cpu import extension

Convert = Callable[[Weight], Weight]
LANES = 16
"""Outputs that kernels compute together; an expert's have to be a multiple."""


@dataclass(frozen=True)
class Formats:
    """What weights are turned into before they are packed: those of linear layers, and tables of tokens."""

    linear: Convert
    table: Convert


class NativeBackend:
    """Native kernels on the CPU. Activations are float32; see `outrider.ops.base.Backend`.

    instruction_set: 'auto' or one of `extension.require().instruction_sets()`.
    Raises ConfigError where the extension or the instruction set is missing.
    """

    def __init__(
        self,
        formats: Formats,
        *,
        cache_dtype: torch.dtype,
        num_threads: int | None = None,
        instruction_set: str = "auto",
    ) -> None:
        self.device = torch.device("cpu")
        self.exact = True
        self.cache_dtype = cache_dtype
        self.instruction_set: str | None = extension.instruction_set(instruction_set)
        self.num_threads = num_threads or extension.physical_cores()
        self._formats = formats
        self._native = extension.require()
        self._threads = self._native.Threads(self.num_threads)
        self.weight_bytes = 0
        """Of all that was packed, as it lies in memory."""

    def with_formats(self, formats: Formats, *, cache_dtype: torch.dtype) -> NativeBackend:
        """The same kernels on the same threads, for a model of other formats."""
        other = copy(self)
        other._formats, other.cache_dtype, other.weight_bytes = formats, cache_dtype, 0
        return other

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """PyTorch's own threads stay asleep. It would share a copy of 100 KB out over them, and they wait for
        the next one spinning: on two cores that slows the kernels down by half, and where the machine is busy
        loading a model took 10 seconds in place of 1.3.

        Raises OutriderError in a fork of the process that made the backend: it has none of its threads.
        """
        try:
            self._threads.check_process()
        except RuntimeError as error:
            raise OutriderError(str(error)) from None
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[Any, ...]:
        to = _float32 if float32 else self._formats.linear
        converted = [to(weight) for weight in weights]
        packed, first = [], 0
        for parts in neighbours(converted):
            last = first + sum(part.shape[0] for part in parts)
            packed.append(self._pack(parts, None if bias is None else bias[first:last]))
            first = last
        return tuple(packed)

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Any:
        converted = [self._formats.linear(weight) for weight in weights]
        formats = sorted({weight.format.name for weight in converted})
        if len(formats) > 1:
            raise ModelError(f"experts of one layer are {', '.join(formats)}; they have to be of one format")
        if any(weight.columns is not None for weight in converted):
            raise ModelError(
                "experts have inputs in an order of their own (act-order), which is not supported"
            )
        if converted[0].shape[0] % LANES:
            raise ModelError(
                f"experts have {converted[0].shape[0]} outputs; they have to be a multiple of {LANES}"
            )
        return self._pack(converted, bias)

    def table(self, weight: Weight) -> Any:
        return self._pack((self._formats.table(weight),))

    def tied(self, table: Any) -> tuple[Any, ...]:
        return (table,)

    def vector(self, values: Floats) -> Floats:
        return np.ascontiguousarray(values, dtype=np.float32)

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """keys: [blocks, kv_heads, head_dim, block_size]; values: the last two the other way round."""
        return tuple(
            LayerCache(
                keys=torch.empty((blocks, s.kv_heads, s.head_dim, block_size), dtype=self.cache_dtype),
                values=torch.empty((blocks, s.kv_heads, block_size, s.head_dim), dtype=self.cache_dtype),
            )
            for s in shapes
        )

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        """values: [slots, *shape.state]."""
        return tuple(StateCache(torch.empty((slots, *shape.state))) for shape in shapes)

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> Forward:
        program = self._native.Program(self._threads, self.instruction_set)
        recorder = Recorder(program)
        program.output(definition(recorder, cache))
        run, from_numpy = program.run, torch.from_numpy

        def forward(spans: Sequence[Span], input: Tensor | None = None) -> Passed:
            tokens = [token for span in spans for token in span.tokens]
            logit_rows = [span.logit_rows for span in spans]
            kept = recorder.room(len(tokens), sum(logit_rows))
            logits = run(
                tokens,
                [span.start for span in spans],
                [len(span.tokens) for span in spans],
                [span.tables for span in spans],
                logit_rows,
                input,
                kept,
                *slots_of(spans, any(isinstance(one, StateCache) for one in cache)),
            )
            return Passed(from_numpy(logits), kept)

        return forward

    def _pack(self, parts: Sequence[Weight], bias: Floats | None = None) -> Any:
        first = parts[0]
        packed = self._native.Matrix.pack(
            self._threads,
            first.format.name,
            [(part.data, part.order) for part in parts],
            first.inputs,
            columns=first.columns,
            bias=bias,
        )
        self.weight_bytes += packed.nbytes
        return packed


def slots_of(spans: Sequence[Span], keeps: bool) -> tuple[list[int], list[list[int]]] | tuple[()]:
    """The slots of states that a pass reads and writes, as the program takes them: -1 where there is none.
    keeps: whether the model has states at all."""
    if not keeps:
        return ()
    before = [-1 if span.state is None else span.state for span in spans]
    return before, [[span.new_states.get(row, -1) for row in range(len(span.tokens))] for span in spans]


def _float32(weight: Weight) -> Weight:
    return convert(weight, FORMATS["F32"])


class Recorder:
    """Operations written down in a native program. Values are the program's numbers for them."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def room(self, rows: int, logit_rows: int) -> Tensor | None:
        """For what the program keeps of a pass."""
        width = self.program.kept_width
        if not width:
            return None
        return torch.empty((logit_rows if self.program.keeps_logit_rows else rows, width))

    def input(self, width: int) -> int:
        return int(self.program.input(width))

    def embed(self, table: Any, scale: float = 1.0) -> int:
        return int(self.program.embed(table, scale))

    def norm(self, x: int, weight: Floats, eps: float, residual: int | None = None) -> int:
        return int(self.program.norm(x, weight, eps, residual))

    def linear(self, x: int, weight: tuple[Any, ...], residual: int | None = None, scale: float = 1.0) -> int:
        return int(self.program.linear(x, list(weight), residual, scale))

    def gated(self, x: int, gate: tuple[Any, ...], up: tuple[Any, ...], activation: Activation) -> int:
        return int(self.program.gated(x, list(gate), list(up), activation))

    def experts(
        self,
        x: int,
        scores: int,
        gates: Any,
        ups: Any,
        downs: Any,
        routing: Routing,
        activation: Activation,
        residual: int | None = None,
        scale: float = 1.0,
        bias: Any = None,
    ) -> int:
        return int(
            self.program.experts(
                x,
                scores,
                gates,
                ups,
                downs,
                count=routing.count,
                chosen=routing.chosen,
                scoring=routing.scoring,
                normalised=routing.normalised,
                factor=routing.factor,
                bias=bias,
                activation=activation,
                residual=residual,
                scale=scale,
            )
        )

    def attend(self, qkv: int, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors) -> int:
        rope = shape.rope
        turns = None
        if rope is not None:
            turns = self.program.rope(np.array(rope.inv_freq, np.float32), rope.factor, rope.interleaved)
        return int(
            self.program.attend(
                qkv,
                cache.keys,
                cache.values,
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                scale=shape.scale,
                rope=turns,
                window=shape.window,
                soft_cap=shape.soft_cap,
                q_norm=vectors.q_norm,
                k_norm=vectors.k_norm,
                norm_eps=shape.norm_eps,
                temperature=shape.temperature and (shape.temperature.beta, shape.temperature.length),
                sinks=vectors.sinks,
                group=cache.group,
            )
        )

    def convolve(
        self, x: int, weight: Floats, bias: Floats | None, cache: StateCache, shape: ConvShape
    ) -> int:
        return int(self.program.convolve(x, weight, bias, cache.values, silu=shape.silu))

    def delta(
        self,
        qkv: int,
        forget: int,
        write: int,
        rates: Floats,
        bias: Floats,
        cache: StateCache,
        shape: DeltaShape,
    ) -> int:
        return int(
            self.program.delta(
                qkv,
                forget,
                write,
                rates,
                bias,
                cache.values,
                key_heads=shape.key_heads,
                value_heads=shape.value_heads,
                key_dim=shape.key_dim,
                value_dim=shape.value_dim,
                tiled=shape.tiled,
            )
        )

    def norm_heads(self, x: int, weight: Floats, heads: int, eps: float) -> int:
        return int(self.program.norm_heads(x, weight, heads, eps))

    def multiply(self, x: int, gate: int, activation: GateActivation | None = None) -> int:
        return int(self.program.multiply(x, gate, activation))

    def soft_cap(self, x: int, cap: float) -> int:
        return int(self.program.soft_cap(x, cap))

    def select_logit_rows(self, x: int) -> int:
        return int(self.program.select_logit_rows(x))

    def keep(self, x: int) -> None:
        self.program.keep(x)
