"""Storage of K and V, addressed by slot: `block * block_size + offset`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """keys, values: [slots, kv_heads, head_dim] of one layer."""

    keys: Tensor
    values: Tensor


class KVStore:
    """K and V of every layer for `num_blocks` blocks of `block_size` positions."""

    def __init__(
        self,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        # Not zeroed as a whole, so that memory is taken as it is used. Padding of a ragged batch points at
        # block 0: its weight in attention is zero, and must not meet a NaN.
        data = torch.empty(
            (layers, 2, num_blocks * block_size, kv_heads, head_dim), dtype=dtype, device=device
        )
        data[:, :, :block_size] = 0
        self.layers = tuple(LayerCache(keys=layer[0], values=layer[1]) for layer in data)
