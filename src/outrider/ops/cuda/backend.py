"""`GpuBackend`: weights on a GPU, and definitions that run there in Triton's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outrider.cache.store import LayerCache, StateCache
from outrider.errors import ModelError
from outrider.formats.convert import convert
from outrider.formats.format import Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight, neighbours
from outrider.ops.base import Cache, Definition, Facts, Forward
from outrider.ops.cuda.chain import GpuChain
from outrider.ops.cuda.device import model_name, open_device
from outrider.ops.cuda.forward import GpuForward
from outrider.ops.cuda.graphs import Graphs
from outrider.ops.cuda.matrix import GpuMatrix, pack_matrix
from outrider.ops.lane import DraftChain, Words
from outrider.ops.shapes import AttentionShape, Rope, StateShape


class GpuBackend:
    """Triton's kernels on one GPU, which are row-invariant. See `outrider.ops.base.Backend`.

    linear, table: the formats that linear layers and tables of tokens become; None: they stay as they are
    stored. cache_dtype: of K and V, and of what linear layers read: 'float32', 'bfloat16' or 'float16'.
    eager: whether nothing is recorded as graphs. Raises ConfigError for a device that cannot be used.
    """

    def __init__(
        self,
        device: str,
        linear: Format | None = None,
        table: Format | None = None,
        *,
        cache_dtype: str,
        eager: bool = False,
    ) -> None:
        self.device = open_device(device)
        self._linear, self._table, self._eager = linear, table, eager
        self._turns = dict[tuple[float, ...], Tensor]()
        self.facts = Facts(
            exact=True,
            device=str(self.device),
            kernels=None,
            threads=1,
            cache_dtype=cache_dtype,
            lazy=False,
            model=model_name(self.device),
            warm_up=2 if eager else 3,  # it is compiled, it is recorded, and it is launched
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of K and V, and of what linear layers read."""
        dtype: torch.dtype = getattr(torch, self.facts.cache_dtype)
        return dtype

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> GpuBackend:
        other = copy(self)
        other._linear, other._table = linear, table
        other.facts = replace(self.facts, cache_dtype=cache_dtype)
        return other

    def check_process(self) -> None:
        """PyTorch refuses a fork of a process that has used a GPU."""

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[GpuMatrix, ...]:
        converted = _converted(weights, FORMATS["F32"] if float32 else self._linear)
        packed, first = [], 0
        for parts in neighbours(converted):
            last = first + sum(part.shape[0] for part in parts)
            packed.append(
                pack_matrix(parts, self.device, None if bias is None else self.vector(bias[first:last]))
            )
            first = last
        return tuple(packed)

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> GpuMatrix:
        converted = _converted(weights, self._linear)
        formats = sorted({weight.format.name for weight in converted})
        if len(formats) > 1:
            raise ModelError(f"experts of one layer are {', '.join(formats)}; they have to be of one format")
        if any(weight.columns is not None for weight in converted):
            raise ModelError(
                "experts have inputs in an order of their own (act-order), which is not supported"
            )
        added = None if bias is None else self.vector(bias)
        return pack_matrix(converted, self.device, added, experts=len(converted))

    def table(self, weight: Weight) -> GpuMatrix:
        return pack_matrix(_converted([weight], self._table), self.device)

    def tied(self, table: GpuMatrix) -> tuple[GpuMatrix, ...]:
        return (table,)

    def as_one(self, layers: Sequence[tuple[GpuMatrix, ...]]) -> tuple[GpuMatrix, ...]:
        return tuple(matrix for layer in layers for matrix in layer)

    def vector(self, values: Floats) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self.device)

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """keys and values: [slots, kv_heads, head_dim]; a slot is `block * block_size + offset`."""

        def room(shape: AttentionShape) -> Tensor:
            size = (blocks * block_size, shape.kv_heads, shape.head_dim)
            return torch.empty(size, dtype=self.dtype, device=self.device)

        return tuple(LayerCache(keys=room(shape), values=room(shape)) for shape in shapes)

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        return tuple(StateCache(torch.empty((slots, *shape.state), device=self.device)) for shape in shapes)

    def release(self, values: Tensor, first: int) -> None:
        """A GPU's memory is taken at once."""

    def own(self, kept: Any) -> Tensor:
        return torch.as_tensor(kept).clone()

    def join(self, kept: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.as_tensor(one) for one in kept])

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> GpuForward:
        graphs = Graphs(self.device, eager=self._eager)
        return GpuForward(graphs, self.dtype, self._frequencies, definition, cache, block_size)

    def chain(self, first: Forward, then: Forward, words: Words, *, in_place: bool = False) -> DraftChain:
        assert isinstance(first, GpuForward)
        assert isinstance(then, GpuForward)
        return GpuChain(first, then, words, in_place=in_place)

    def _frequencies(self, rope: Rope | None) -> Tensor:
        """The frequencies of a rope, uploaded once."""
        key = () if rope is None else rope.inv_freq
        if key not in self._turns:
            self._turns[key] = torch.tensor(key, dtype=torch.float32, device=self.device)
        return self._turns[key]


def _converted(weights: Sequence[Weight], format: Format | None) -> list[Weight]:
    return [weight if format is None else convert(weight, format) for weight in weights]
