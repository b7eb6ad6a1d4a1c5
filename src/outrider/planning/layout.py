"""What a weight takes on each backend: when it is loaded, and afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from outrider.config import EngineConfig, Quantization
from outrider.engine.backend import (
    choose_device,
    draft_config,
    is_native,
    native_cache_dtype,
    native_formats,
    torch_dtype,
)
from outrider.errors import ConfigError
from outrider.models.checkpoint import Checkpoint
from outrider.ops.cpu.layout import CODE_BITS, packed_bytes
from outrider.quantization.slabs import SLAB
from outrider.quantization.weight import GROUP, Format

HUGE_PAGE, MAPPING = 2**21, 2**26  # bytes of what native/matrix.cpp lays weights in
KEPT = 112 * 2**20  # bytes: oneDNN's kernels for every number of rows, and what the C library keeps of values
COPIES = 8  # in float32, of the slab that is being decoded or converted


class Matrix(NamedTuple):
    """A weight [outputs, inputs] in the format that its checkpoint gives it in."""

    format: Format
    outputs: int
    inputs: int


@dataclass(frozen=True)
class Step:
    """Loading of one or more weights: bytes that stay, and bytes that are needed beside them meanwhile."""

    stays: int
    passes: int = 0


class Layout(Protocol):
    """A backend, as far as memory goes."""

    @property
    def cache_itemsize(self) -> int:
        """Bytes of a number in the K/V cache."""

    @property
    def exact(self) -> bool:
        """Whether the native kernels compute; see `outrider.ops.base.Backend`."""

    def spare(self, weights: Iterable[int]) -> int:
        """Bytes at most that are kept beside the weights of models of these sizes."""

    def linear(self, weights: Sequence[Matrix]) -> Step:
        """Weights of equal inputs, packed one below the other."""

    def table(self, weight: Matrix) -> Step:
        """A table of tokens."""

    def tied(self, weight: Matrix) -> Step:
        """An output layer whose weight is the table."""


@dataclass(frozen=True)
class NativeLayout:
    """linear_format, table_format: what weights become; None: what they are."""

    linear_format: Format | None
    table_format: Format | None
    cache_itemsize: int
    exact: bool = True

    def spare(self, weights: Iterable[int]) -> int:
        return sum(HUGE_PAGE * -(-size // MAPPING) for size in weights)  # of pages that they do not fill

    def linear(self, weights: Sequence[Matrix]) -> Step:
        return _native(weights, self.linear_format)

    def table(self, weight: Matrix) -> Step:
        return _native([weight], self.table_format)

    def tied(self, weight: Matrix) -> Step:
        return Step(0)


@dataclass(frozen=True)
class TorchLayout:
    """Every weight in one float type; oneDNN's packed copy of a tied table lies beside the table."""

    itemsize: int
    exact: bool = False

    def spare(self, weights: Iterable[int]) -> int:
        return KEPT

    @property
    def cache_itemsize(self) -> int:
        return self.itemsize

    def linear(self, weights: Sequence[Matrix]) -> Step:
        values = sum(w.outputs * w.inputs for w in weights)
        read = sum(loose(w) for w in weights)
        # In float32 one by one and joined, then in the type and packed.
        return Step(values * self.itemsize, read + values * 4 * (2 if len(weights) > 1 else 1))

    def table(self, weight: Matrix) -> Step:
        values = weight.outputs * weight.inputs
        return Step(values * self.itemsize, loose(weight) + values * 4)

    def tied(self, weight: Matrix) -> Step:
        return Step(weight.outputs * weight.inputs * self.itemsize)


def layout_of(config: EngineConfig, checkpoint: Checkpoint) -> Layout:
    """Of the backend that the configuration means. Raises ConfigError for one that is not on the CPU."""
    device = choose_device(config.device)
    if device.type != "cpu":
        raise ConfigError(
            f"a plan for device = {config.device!r} ({device.type}) cannot be made: only the CPU's memory is "
            "planned; give device='cpu', or no memory_limit"
        )
    if is_native(config, device):
        return _native_layout(config, checkpoint)
    dtype: torch.dtype = torch_dtype(config, checkpoint, device)
    return TorchLayout(dtype.itemsize)


def draft_layout(
    config: EngineConfig,
    target: Layout,
    checkpoint: Checkpoint,
    quantization: Quantization | None,
    *,
    option: str,
) -> Layout:
    """Of what `outrider.engine.backend.draft_backend` makes of the target's, with the same refusal."""
    own = draft_config(config, quantization, native=target.exact, option=option)
    return _native_layout(own, checkpoint) if target.exact else target


def _native_layout(config: EngineConfig, checkpoint: Checkpoint) -> NativeLayout:
    linear, table = native_formats(config)
    return NativeLayout(linear, table, native_cache_dtype(config, checkpoint).itemsize)


def _native(weights: Sequence[Matrix], wanted: Format | None) -> Step:
    """As `NativeBackend.pack` goes: each is read and converted, neighbours of a format joined and packed."""
    originals = [loose(w) for w in weights if wanted not in (None, w.format)]
    converted = 0
    joined: list[Matrix] = []
    for weight in weights:
        made = weight._replace(format=wanted or weight.format)
        converted += loose(made)
        if joined and joined[-1].format == made.format:
            joined[-1] = made._replace(outputs=joined[-1].outputs + made.outputs)
        else:
            joined.append(made)
    stays = sum(packed_bytes(*matrix) for matrix in joined)
    copies = 2 if len(weights) > 1 else 1
    slab = 4 * COPIES * min(SLAB, max(w.outputs * w.inputs for w in weights))
    return Step(stays, slab + max(originals, default=0) + converted * copies)


def loose(weight: Matrix) -> int:
    """Bytes before packing, when every integer code has a byte; see `outrider.quantization.weight.Weight`."""
    scales = {"int8": 2, "int4": 2, "int4_min": 4}.get(weight.format, 0) * -(-weight.inputs // GROUP)
    return weight.outputs * (weight.inputs * max(8, CODE_BITS[weight.format]) // 8 + scales)
