"""Backends that count bytes in place of loading: what a model takes is what the real loading code asks them
for.

Nothing of a weight is read but where it lies and in which format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, Self

import numpy as np

from outrider.config import EngineConfig
from outrider.engine.backend import (
    CPU,
    draft_formats,
    is_gpu,
    is_native,
    lack_of_triton,
    native_formats,
    planned_device,
    torch_cache_dtype,
    torch_dtype,
    triton_formats,
)
from outrider.errors import ConfigError
from outrider.formats.format import Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight, neighbours
from outrider.machine.cores import default_threads
from outrider.models.checkpoint import Checkpoint
from outrider.models.config import ModelConfig
from outrider.models.tensors import Tensor
from outrider.ops.base import Backend, Facts, bytes_of
from outrider.ops.cpu import extension
from outrider.ops.shapes import AttentionShape
from outrider.option_types import Quantization
from outrider.planning.passes import PassSize, cut_attention, padded_attention
from outrider.planning.process import OF_PROCESSOR, Keeps

HUGE_PAGE, MAPPING = 2**21, 2**26  # bytes of what native/matrix.cpp lays weights in
KEPT = 112 * 2**20  # bytes: oneDNN's kernels for every number of rows, and what the C library keeps of values
NOTHING = np.zeros(1, np.uint8)
COPIES = 4  # in float32, of a row that is chosen from, at most


@dataclass(frozen=True)
class Entry:
    """A weight that would be packed. format: its name."""

    format: str
    nbytes: int


class Ledger(Backend, Protocol):
    """A backend, as far as memory goes.

    stays: bytes of what was loaded; peak: the most that there was at a time, what stays counted; keeps: what
    of the same memory is no model's.
    """

    keeps: Keeps
    stays: int
    peak: int

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> Ledger:
        """An empty one."""

    def spare(self, weights: Iterable[int]) -> int:
        """Bytes at most that are kept beside the weights of models of these sizes."""

    def workspace(self, shapes: Sequence[AttentionShape], size: PassSize) -> int:
        """Bytes of sums that are not done in a pass, attention's above all, beside rows and cache."""

    def choosing(self, vocab: int, rows: int) -> int:
        """Bytes that choosing a token of so many for each of some rows takes, beside their logits."""


class Counting:
    """What all ledgers do alike."""

    keeps = OF_PROCESSOR

    def __init__(self, cache_dtype: str, *, exact: bool, threads: int = 1, device: str = CPU) -> None:
        self.facts = Facts(
            exact=exact, device=device, kernels=None, threads=threads, cache_dtype=cache_dtype, lazy=True
        )
        self.stays = self.peak = 0

    def count(self, stays: int, passes: int = 0) -> None:
        """Take down bytes that stay, and bytes that are needed beside them meanwhile."""
        self.stays += stays
        self.peak = max(self.peak, self.stays + passes)

    def vector(self, values: Floats) -> Floats:
        return values  # kilobytes

    def as_one(self, layers: Sequence[tuple[Entry, ...]]) -> tuple[Entry, ...]:
        return tuple(entry for layer in layers for entry in layer)

    def own(self, kept: Floats) -> Floats:
        return kept

    def join(self, kept: Sequence[Floats]) -> Floats:
        return np.concatenate(kept)  # of vectors

    def _nothing(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("a ledger has no cache and computes nothing")

    check_process = new_cache = new_states = release = compile = chain = _nothing


class Packing(Counting):
    """What ledgers of kernels do alike that compute with weights as they are stored.

    linear, table: the formats that weights become; None: as they are stored. threads: that compute.
    """

    def __init__(
        self,
        linear: Format | None,
        table: Format | None,
        cache_dtype: str,
        *,
        threads: int = 1,
        device: str = CPU,
    ) -> None:
        super().__init__(cache_dtype, exact=True, threads=threads, device=device)
        self._linear, self._table = linear, table

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> Self:
        return type(self)(linear, table, cache_dtype, threads=self.facts.threads, device=self.facts.device)

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[Entry, ...]:
        return self._packed(weights, FORMATS["F32"] if float32 else self._linear)

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Entry:
        return together(self._packed(weights, self._linear))

    def table(self, weight: Weight) -> Entry:
        return self._packed([weight], self._table)[0]

    def tied(self, table: Entry) -> tuple[Entry, ...]:
        return (table,)

    def _packed(self, weights: Sequence[Weight], wanted: Format | None) -> tuple[Entry, ...]:
        """Neighbours of one format in one; what they take on the way in is counted."""
        raise NotImplementedError


class NativeLedger(Packing):
    """What the kernels for the CPU take, which pack weights from the file's pages."""

    def spare(self, weights: Iterable[int]) -> int:
        return sum(HUGE_PAGE * -(-size // MAPPING) for size in weights)  # of pages that they do not fill

    def workspace(self, shapes: Sequence[AttentionShape], size: PassSize) -> int:
        return cut_attention(shapes, size)

    def choosing(self, vocab: int, rows: int) -> int:
        return 2 * 4 * vocab * self.facts.threads  # a row that is edited, and one to choose from

    def _packed(self, weights: Sequence[Weight], wanted: Format | None) -> tuple[Entry, ...]:
        bytes_of = extension.require().Matrix.bytes_of
        entries = []
        for parts in neighbours(weights, wanted):
            outputs, format = sum(part.shape[0] for part in parts), wanted or parts[0].format
            entries.append(Entry(format.name, bytes_of(format.name, outputs, parts[0].inputs)))
        self.count(sum(entry.nbytes for entry in entries), sum(map(_stored, weights)))
        return tuple(entries)


def _stored(weight: Weight) -> int:
    """Bytes before it is packed."""
    return weight.shape[0] * weight.format.row_bytes(weight.inputs)


class TorchLedger(Counting):
    """Every weight in one float type; oneDNN's packed copy of a tied table lies beside the table."""

    def __init__(self, dtype: str, cache_dtype: str | None = None) -> None:
        super().__init__(cache_dtype or dtype, exact=False)
        self._dtype = dtype

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> TorchLedger:
        return TorchLedger(self._dtype, cache_dtype)

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[Entry, ...]:
        return self._made(weights, 2 if len(weights) > 1 else 1)  # in float32 one by one and joined

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Entry:
        return together([self._made([weight], 1)[0] for weight in weights])

    def table(self, weight: Weight) -> Entry:
        return self._made([weight], 1)[0]

    def tied(self, table: Entry) -> tuple[Entry, ...]:
        self.count(table.nbytes)
        return (table,)

    def spare(self, weights: Iterable[int]) -> int:
        return KEPT

    def workspace(self, shapes: Sequence[AttentionShape], size: PassSize) -> int:
        return padded_attention(shapes, size)

    def choosing(self, vocab: int, rows: int) -> int:
        return COPIES * 4 * vocab

    def _made(self, weights: Sequence[Weight], copies: int) -> tuple[Entry, ...]:
        sizes = [weight.shape[0] * weight.inputs for weight in weights]
        read = sum(weight.data.nbytes for weight in weights)
        entry = Entry("", sum(sizes) * bytes_of(self._dtype))
        self.count(entry.nbytes, read + 4 * copies * sum(sizes))
        return (entry,)


def together(entries: Sequence[Entry]) -> Entry:
    """The matrices of experts as one."""
    return Entry(entries[0].format, sum(entry.nbytes for entry in entries))


class Headers(Protocol):
    """What is known of a checkpoint without its weights."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def quantised_by(self) -> str | None:
        """See `Checkpoint`."""

    def format(self, tensor: Tensor) -> Format:
        """The format of a matrix."""


@dataclass(frozen=True)
class Outline:
    """A checkpoint of which only headers are read: its weights are as large as the files', and empty."""

    checkpoint: Headers

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    def weight(self, tensor: Tensor) -> Weight:
        format, (rows, inputs) = self.checkpoint.format(tensor), tensor.shape
        return Weight(format, np.broadcast_to(NOTHING, (rows, format.row_bytes(inputs))), inputs)

    def floats(self, tensor: Tensor) -> Floats:
        return np.zeros(tensor.shape, np.float32)

    def release(self, tensor: Tensor) -> None:
        """Nothing was read."""


def ledger_of(config: EngineConfig, checkpoint: Checkpoint) -> Ledger:
    """The ledger of the backend that the configuration means. Raises ConfigError for PyTorch's beside the
    CPU."""
    device = planned_device(config.device)
    if is_gpu(config, device):
        if lack := lack_of_triton(config):
            raise unplanned(config, f"{device}, where PyTorch computes, since {lack}")
        from outrider.planning.gpu import EagerGpuLedger, GpuLedger  # ledgers like those here

        ledger = EagerGpuLedger if config.enforce_eager else GpuLedger
        return ledger(*triton_formats(config, checkpoint), device=device)
    if device != CPU:
        raise unplanned(config, device)
    if is_native(config, device):
        threads = config.num_threads or default_threads()
        return NativeLedger(*native_formats(config, checkpoint), threads=threads)
    dtype = torch_dtype(config, checkpoint, device)
    return TorchLedger(dtype, torch_cache_dtype(config, dtype))


def unplanned(config: EngineConfig, device: str) -> ConfigError:
    """What is raised for a plan where PyTorch computes. device: its name, and why it does."""
    return ConfigError(
        f"a plan for device = {config.device!r} ({device}) cannot be made: what PyTorch takes beside the CPU "
        "is not planned; give no limit of memory, or device='cpu'"
    )


def draft_ledger(
    config: EngineConfig,
    target: Ledger,
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    *,
    option: str,
) -> Ledger:
    """The ledger for a draft: as `outrider.engine.backend.draft_backend`, with the same refusal."""
    linear, table, cache_dtype = draft_formats(config, target.facts, checkpoint, quantization, option=option)
    return target.with_formats(linear, table, cache_dtype=cache_dtype)
