"""`TorchBackend`: every operation in plain PyTorch, run anew for each batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.base import AttentionShape, CacheShape, Definition, Forward, Passed, Rope
from outrider.ops.batch import Batch, Span
from outrider.ops.torch.attention import AttentionGroup, attend, group_requests
from outrider.ops.torch.linear import Linear, pack_linear
from outrider.quantization.weight import Weight


class TorchBackend:
    """PyTorch on one device in one dtype. See `outrider.ops.base.Backend` for the contract."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = self.cache_dtype = dtype
        self.exact = False
        self.num_threads = torch.get_num_threads()
        self.instruction_set: str | None = None

    def undisturbed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def pack(self, weights: Iterable[Weight], biases: Sequence[Tensor] | None = None) -> Linear:
        weight = torch.cat([weight.dequantize() for weight in weights]).to(self.device, self.dtype)
        bias = None if biases is None else torch.cat(list(biases)).to(self.device, self.dtype)
        return pack_linear(weight, bias)

    def table(self, weight: Weight) -> Tensor:
        return weight.dequantize().to(self.device, self.dtype)

    def tied(self, table: Tensor) -> Linear:
        return pack_linear(table, None)

    def new_cache(self, cache: CacheShape, shape: AttentionShape) -> Sequence[LayerCache]:
        """keys and values: [slots, kv_heads, head_dim]; a slot is `block * block_size + offset`."""
        slots = cache.num_blocks * cache.block_size
        sizes = (cache.layers, 2, slots, shape.kv_heads, shape.head_dim)
        data = torch.empty(sizes, dtype=self.cache_dtype, device=self.device)
        data[:, :, : cache.block_size] = 0
        return tuple(LayerCache(keys=layer[0], values=layer[1]) for layer in data)

    def compile(
        self,
        definition: Definition,
        cache: Sequence[LayerCache],
        block_size: int,
        shape: AttentionShape,
        rope: Rope,
    ) -> Forward:
        def forward(spans: Sequence[Span], input: Tensor | None = None) -> Passed:
            batch = Batch.of(spans, block_size, self.device)
            given = None if input is None else input.to(self.device, self.dtype)
            ops = TorchOps.over(batch, shape, rope, self.dtype, given)
            logits: Tensor = definition(ops, cache)
            return Passed(logits.float(), torch.cat(ops.kept, dim=-1).float() if ops.kept else None)

        return forward


@dataclass(frozen=True)
class TorchOps:
    """One pass. cos, sin: [rows, 1, head_dim]; unpad: where each row stands in the groups' output; given: the
    input, if the pass has one."""

    batch: Batch
    shape: AttentionShape
    cos: Tensor
    sin: Tensor
    groups: tuple[AttentionGroup, ...]
    unpad: Tensor
    given: Tensor | None = None
    kept: list[Tensor] = field(default_factory=list)

    @classmethod
    def over(
        cls, batch: Batch, shape: AttentionShape, rope: Rope, dtype: torch.dtype, given: Tensor | None = None
    ) -> TorchOps:
        """Prepare what the layers share: rotary tables and the layout of attention."""
        angles = batch.positions[:, None].float() * rope.inv_freq.to(batch.positions.device)
        angles = torch.cat([angles, angles], dim=-1)[:, None, :]  # [rows, 1, head_dim]
        cos, sin = ((f(angles) * rope.attention_factor).to(dtype) for f in (torch.cos, torch.sin))
        return cls(batch, shape, cos, sin, *group_requests(batch, shape, dtype), given)

    def input(self, width: int) -> Tensor:
        if self.given is None or self.given.shape[1] != width:
            found = None if self.given is None else tuple(self.given.shape)
            raise ValueError(f"the pass needs an input of shape ({self.batch.rows}, {width}); it has {found}")
        return self.given

    def embed(self, table: Tensor) -> Tensor:
        return F.embedding(self.batch.tokens, table)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight.to(x), eps)

    def linear(self, x: Tensor, weight: Linear, residual: Tensor | None = None) -> Tensor:
        return weight(x) if residual is None else residual + weight(x)

    def gated(self, x: Tensor, gate: Linear, up: Linear) -> Tensor:
        return F.silu(gate(x)) * up(x)

    def rotate_and_store(self, qkv: Tensor, cache: LayerCache) -> Tensor:
        shape = self.shape
        heads = qkv.view(len(qkv), -1, shape.head_dim)
        rotated = heads[:, : shape.heads + shape.kv_heads]
        low, high = rotated.chunk(2, dim=-1)
        rotated = rotated * self.cos + torch.cat([-high, low], dim=-1) * self.sin
        cache.keys[self.batch.slots] = rotated[:, shape.heads :].to(cache.keys.dtype)
        cache.values[self.batch.slots] = heads[:, shape.heads + shape.kv_heads :].to(cache.values.dtype)
        return rotated[:, : shape.heads]

    def attend(self, q: Tensor, cache: LayerCache) -> Tensor:
        return attend(q, self.groups, self.shape, cache).index_select(0, self.unpad).flatten(1)

    def select_logit_rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.batch.logit_rows)

    def keep(self, x: Tensor) -> None:
        self.kept.append(x)
