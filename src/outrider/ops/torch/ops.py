"""`TorchOps`: every operation in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.base import AttentionShape, Rope
from outrider.ops.batch import Batch
from outrider.ops.torch.attention import AttentionGroup, attend, group_requests
from outrider.ops.torch.linear import Linear, pack_linear


@dataclass(frozen=True)
class TorchPlan:
    """cos, sin: [rows, 1, head_dim]; slots: [rows]; unpad: where each row stands in the groups' output."""

    shape: AttentionShape
    cos: Tensor
    sin: Tensor
    slots: Tensor
    groups: tuple[AttentionGroup, ...]
    unpad: Tensor


class TorchOps:
    """PyTorch operations on one device in one dtype. See `outrider.ops.base.Ops` for the contract."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        weight = weight.to(self.device, self.dtype)
        bias = None if bias is None else bias.to(self.device, self.dtype)
        return pack_linear(weight, bias)

    def plan(self, batch: Batch, shape: AttentionShape, rope: Rope) -> TorchPlan:
        angles = batch.positions[:, None].float() * rope.inv_freq.to(self.device)
        angles = torch.cat([angles, angles], dim=-1)[:, None, :]  # [rows, 1, head_dim]
        groups, unpad = group_requests(batch, shape, self.dtype)
        return TorchPlan(
            shape=shape,
            cos=(angles.cos() * rope.attention_factor).to(self.dtype),
            sin=(angles.sin() * rope.attention_factor).to(self.dtype),
            slots=batch.slots,
            groups=groups,
            unpad=unpad,
        )

    def embed(self, tokens: Tensor, table: Tensor) -> Tensor:
        return F.embedding(tokens, table)

    def linear(self, x: Tensor, weight: Linear) -> Tensor:
        return weight(x)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    def rotate_and_store(self, qkv: Tensor, plan: TorchPlan, cache: LayerCache) -> Tensor:
        shape = plan.shape
        heads = qkv.view(len(qkv), -1, shape.head_dim)
        rotated = heads[:, : shape.heads + shape.kv_heads]
        low, high = rotated.chunk(2, dim=-1)
        rotated = rotated * plan.cos + torch.cat([-high, low], dim=-1) * plan.sin
        cache.keys[plan.slots] = rotated[:, shape.heads :].to(cache.keys.dtype)
        cache.values[plan.slots] = heads[:, shape.heads + shape.kv_heads :].to(cache.values.dtype)
        return rotated[:, : shape.heads]

    def attend(self, q: Tensor, plan: TorchPlan, cache: LayerCache) -> Tensor:
        return attend(q, plan.groups, plan.shape, cache).index_select(0, plan.unpad).flatten(1)

    def gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
