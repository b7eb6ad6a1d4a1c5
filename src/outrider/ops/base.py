"""The operations that a decoder is made of. One implementation a backend; chosen when a model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.batch import Batch


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., 2021) in the half-split layout.

    inv_freq: float32 [head_dim / 2], scaling applied; attention_factor multiplies cos and sin.
    """

    inv_freq: Tensor
    attention_factor: float


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one layer; query head h reads K/V head `h * kv_heads // heads`."""

    heads: int
    kv_heads: int
    head_dim: int
    sliding_window: int | None


Packed = TypeVar("Packed")
"""A weight [out, in] with an optional bias [out], in the backend's own layout."""

Plan = TypeVar("Plan")
"""What every layer of one forward pass shares: rotary tables and the layout of attention."""


class Ops(Protocol[Packed, Plan]):
    """Activations are [rows, features]; every row is computed from itself and its own K/V history."""

    device: torch.device
    dtype: torch.dtype

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Packed:
        """Lay out a weight [out, in] for `linear`, converted to `dtype` on `device`."""

    def plan(self, batch: Batch, shape: AttentionShape, rope: Rope) -> Plan:
        """Prepare what the layers of one forward pass share."""

    def embed(self, tokens: Tensor, table: Tensor) -> Tensor:
        """[rows] -> [rows, hidden]."""

    def linear(self, x: Tensor, weight: Packed) -> Tensor:
        """[rows, in] -> [rows, out]."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root-mean-square norm (Zhang and Sennrich, 2019) of each row."""

    def rotate_and_store(self, qkv: Tensor, plan: Plan, cache: LayerCache) -> Tensor:
        """Rotate q and k of [rows, (heads + 2 kv_heads) * head_dim], write k and v to the cache, return q."""

    def attend(self, q: Tensor, plan: Plan, cache: LayerCache) -> Tensor:
        """Causal attention of q over each row's own cached positions: [rows, heads * head_dim]."""

    def gate(self, gate_up: Tensor) -> Tensor:
        """[rows, 2 * n] -> [rows, n]: silu of the first half times the second."""
