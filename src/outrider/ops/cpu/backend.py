"""`NativeBackend`: a definition is recorded once and replayed by native code in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.errors import OutriderError
from outrider.ops.base import AttentionShape, CacheShape, Definition, Forward, Passed, Rope
from outrider.ops.batch import Span
from outrider.ops.cpu import extension
from outrider.quantization.weight import Weight, join

UNLIMITED = 2**30  # a window that no position reaches the end of

Convert = Callable[[Weight], Weight]


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

    def pack(self, weights: Iterable[Weight], biases: Sequence[Tensor] | None = None) -> tuple[Any, ...]:
        parts = join([self._formats.linear(weight) for weight in weights])
        bias = None if biases is None else torch.cat(list(biases)).float()
        packed = []
        first = 0
        for part in parts:
            last = first + part.shape[0]
            packed.append(self._pack(part, None if bias is None else bias[first:last].contiguous()))
            first = last
        return tuple(packed)

    def table(self, weight: Weight) -> Any:
        return self._pack(self._formats.table(weight))

    def tied(self, table: Any) -> tuple[Any, ...]:
        return (table,)

    def new_cache(self, cache: CacheShape, shape: AttentionShape) -> Sequence[LayerCache]:
        """keys: [blocks, kv_heads, head_dim, block_size]; values: the last two the other way round."""
        heads, dim, size = shape.kv_heads, shape.head_dim, cache.block_size
        return tuple(
            LayerCache(
                keys=torch.empty((cache.num_blocks, heads, dim, size), dtype=self.cache_dtype),
                values=torch.empty((cache.num_blocks, heads, size, dim), dtype=self.cache_dtype),
            )
            for _ in range(cache.layers)
        )

    def compile(
        self,
        definition: Definition,
        cache: Sequence[LayerCache],
        block_size: int,
        shape: AttentionShape,
        rope: Rope,
    ) -> Forward:
        window = min(shape.sliding_window or UNLIMITED, UNLIMITED)
        program = self._native.Program(
            self._threads,
            self.instruction_set,
            [shape.heads, shape.kv_heads, shape.head_dim, window],
            rope.inv_freq.tolist(),
            rope.attention_factor,
        )
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
                [span.blocks for span in spans],
                logit_rows,
                input,
                kept,
            )
            return Passed(from_numpy(logits), kept)

        return forward

    def _pack(self, weight: Weight, bias: Tensor | None = None) -> Any:
        packed = self._native.Matrix.pack(
            weight.format, weight.values, scales=weight.scales, mins=weight.mins, bias=bias
        )
        self.weight_bytes += packed.nbytes
        return packed


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

    def embed(self, table: Any) -> int:
        return int(self.program.embed(table))

    def rms_norm(self, x: int, weight: Tensor, eps: float) -> int:
        return int(self.program.rms_norm(x, weight.float(), eps))

    def linear(self, x: int, weight: tuple[Any, ...], residual: int | None = None) -> int:
        return int(self.program.linear(x, list(weight), residual))

    def gated(self, x: int, gate: tuple[Any, ...], up: tuple[Any, ...]) -> int:
        return int(self.program.gated(x, *gate, *up))

    def rotate_and_store(self, qkv: int, cache: LayerCache) -> int:
        return int(self.program.rotate_and_store(qkv, cache.keys, cache.values))

    def attend(self, q: int, cache: LayerCache) -> int:
        return int(self.program.attend(q, cache.keys, cache.values))

    def select_logit_rows(self, x: int) -> int:
        return int(self.program.select_logit_rows(x))

    def keep(self, x: int) -> None:
        self.program.keep(x)
