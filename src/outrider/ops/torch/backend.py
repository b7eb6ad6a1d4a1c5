"""`TorchBackend`: every operation in plain PyTorch, run anew for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outrider.cache.pages import release_pages
from outrider.cache.store import LayerCache, StateCache
from outrider.errors import ConfigError
from outrider.formats.format import Floats, Format
from outrider.formats.weight import Weight
from outrider.ops.base import Cache, Definition, Facts, Forward, Passed
from outrider.ops.choice import Choice, Stepped
from outrider.ops.lane import DraftChain, Words
from outrider.ops.shapes import AttentionShape, StateShape
from outrider.ops.span import Span
from outrider.ops.torch.batch import Batch
from outrider.ops.torch.chain import TorchChain
from outrider.ops.torch.choose import TorchRows, choose
from outrider.ops.torch.linear import Linear, pack_linear
from outrider.ops.torch.ops import TorchOps


class TorchBackend:
    """PyTorch on one device in one dtype. See `outrider.ops.base.Backend` for the contract.

    device, dtype: as PyTorch names them. cache_dtype: of K and V, 'int8' or the same as dtype; None: the
    same. Raises ConfigError for a device that cannot be used.
    """

    def __init__(self, device: str, dtype: str, cache_dtype: str | None = None) -> None:
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.facts = Facts(
            exact=False,
            device=str(self.device),
            kernels=None,
            threads=torch.get_num_threads(),
            cache_dtype=cache_dtype or dtype,
            lazy=self.device.type == "cpu",
            model=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "",
        )

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> TorchBackend:
        for format in (linear, table):
            if format is not None:
                raise ConfigError(
                    f"PyTorch computes in floats; it has no kernels for the format {format.name}"
                )
        return self

    def check_process(self) -> None:
        """PyTorch sees to its own threads."""

    def pack(self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False) -> Linear:
        dtype = torch.float32 if float32 else self.dtype
        weight = torch.cat([torch.from_numpy(weight.dequantize()) for weight in weights])
        added = None if bias is None else torch.from_numpy(bias).to(self.device, dtype)
        linear = pack_linear(weight.to(self.device, dtype), added)
        return (lambda x: linear(x.float())) if float32 else linear

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Sequence[Linear]:
        biases = [None] * len(weights) if bias is None else np.split(bias, len(weights))
        return [self.pack([weight], one) for weight, one in zip(weights, biases, strict=True)]

    def table(self, weight: Weight) -> Tensor:
        return self._cast(weight.dequantize())

    def tied(self, table: Tensor) -> Linear:
        return pack_linear(table, None)

    def as_one(self, layers: Sequence[Linear]) -> Linear:
        return lambda x: torch.cat([layer(x) for layer in layers], dim=-1)

    def vector(self, values: Floats) -> Tensor:
        return self._cast(values)

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """keys and values: [slots, kv_heads, bytes of a head as numbers]; a slot is `block * block_size +
        offset`. With 8 bits, the last numbers of a head are the bytes of a float32: see
        `outrider.ops.torch.codes`."""
        dtype: torch.dtype = getattr(torch, self.facts.cache_dtype)

        def room(shape: AttentionShape) -> Tensor:
            numbers = self.facts.head_bytes(shape.head_dim) // self.facts.cache_bytes
            data = torch.empty(
                (blocks * block_size, shape.kv_heads, numbers), dtype=dtype, device=self.device
            )
            data[:block_size] = 0
            return data

        return tuple(LayerCache(keys=room(shape), values=room(shape)) for shape in shapes)

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        return tuple(StateCache(torch.empty((slots, *shape.state), device=self.device)) for shape in shapes)

    def release(self, values: Tensor, first: int) -> None:
        if self.facts.lazy:
            release_pages(values[first:].view(torch.uint8).numpy())

    def own(self, kept: Any) -> Tensor:
        return torch.as_tensor(kept).clone()

    def join(self, kept: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.as_tensor(one) for one in kept])

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> TorchForward:
        return TorchForward(self, definition, cache, block_size)

    def chain(self, first: Forward, then: Forward, words: Words, *, in_place: bool = False) -> DraftChain:
        assert isinstance(first, TorchForward)
        assert isinstance(then, TorchForward)
        return TorchChain(first.run, then.run, words, in_place=in_place)

    def _cast(self, values: Floats) -> Tensor:
        return torch.from_numpy(values).to(self.device, self.dtype)


class TorchForward:
    """A definition over a cache. See `outrider.ops.base.Forward`."""

    def __init__(
        self, backend: TorchBackend, definition: Definition, cache: Sequence[Cache], block_size: int
    ) -> None:
        self._backend = backend
        self._definition = definition
        self._cache = cache
        self._block_size = block_size

    @torch.inference_mode()
    def run(self, spans: Sequence[Span], input: Any = None) -> tuple[Tensor, Tensor | None]:
        """Logits, float32 [sum of logit_rows, vocab], and what is kept, float32 [rows, sum of widths]."""
        device, dtype = self._backend.device, self._backend.dtype
        batch = Batch.of(spans, self._block_size, device)
        ops = TorchOps(batch, dtype, None if input is None else torch.as_tensor(input).to(device, dtype))
        logits: Tensor = self._definition(ops, self._cache)
        return logits.float(), torch.cat(ops.kept, dim=-1).float() if ops.kept else None

    def __call__(self, spans: Sequence[Span], input: Any = None) -> Passed:
        logits, kept = self.run(spans, input)
        return Passed(logits.cpu().numpy(), kept)

    def move(self, tables: Sequence[Sequence[int]], places: Sequence[int], to: int) -> None:
        size = self._block_size
        for layer in self._cache:
            if isinstance(layer, LayerCache):
                table = tables[layer.group]
                old, new = (
                    [table[place // size] * size + place % size for place in of]
                    for of in (places, range(to, to + len(places)))
                )
                for values in (layer.keys, layer.values):
                    values[new] = values[old]

    def step(
        self,
        spans: Sequence[Span],
        choices: Sequence[Choice | None],
        input: Any = None,
        *,
        looks: bool = False,
    ) -> Stepped:
        logits, kept = self.run(spans, input)
        ends = accumulate((span.logit_rows for span in spans), initial=0)
        rows = [
            TorchRows(logits[first:last], choice)
            for (first, last), choice in zip(pairwise(ends), choices, strict=True)
        ]
        tokens = [[] if each.choice is None else choose(each.logits, each.choice) for each in rows]
        return Stepped(tokens, rows if looks else None, kept)
