"""A model with its own paged cache. The target and a draft model are each one of these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.cache.pool import BlockPool
from outrider.cache.table import BlockTable
from outrider.models.llama import Llama
from outrider.ops.base import CacheShape
from outrider.ops.batch import Span


class ModelRunner:
    """Runs ragged forward passes of `model` over `num_blocks` cache blocks of `block_size` positions."""

    def __init__(self, model: Llama, *, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        self.model = model
        self.pool = BlockPool(num_blocks)
        self.block_size = block_size
        self._prefix_caching = prefix_caching
        cache = model.backend.new_cache(
            CacheShape(model.config.num_layers, num_blocks, block_size), model.shape
        )
        self._forward = model.backend.compile(model.forward, cache, block_size, model.shape, model.rope)

    def table(self) -> BlockTable:
        """An empty block table for one request."""
        return BlockTable(self.pool, self.block_size, prefix_caching=self._prefix_caching)

    @torch.inference_mode()
    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Compute the spans' rows; float32 logits [sum of logit_rows, vocab]."""
        return self._forward(spans)


def block_bytes(model: Llama, block_size: int) -> int:
    """Bytes of K and V that one block takes."""
    config = model.config
    positions = 2 * config.num_layers * block_size
    return positions * config.num_kv_heads * config.head_dim * model.backend.cache_dtype.itemsize
