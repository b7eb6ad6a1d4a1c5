"""A model with its own paged cache. The target and a draft model are each one of these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.cache.pages import release_pages
from outrider.cache.pool import BlockPool
from outrider.cache.table import BlockTable
from outrider.models.llama import Llama
from outrider.ops.base import CacheShape
from outrider.ops.batch import Span


class ModelRunner:
    """Runs ragged forward passes of `model` over `num_blocks` cache blocks of `block_size` positions.

    reserve: blocks beyond these, which on the CPU take no memory before `pool.lend` and after `reclaim`.
    """

    def __init__(
        self, model: Llama, *, num_blocks: int, block_size: int, prefix_caching: bool, reserve: int = 0
    ) -> None:
        self.model = model
        self.pool = BlockPool(num_blocks, reserve)
        self.block_size = block_size
        self._prefix_caching = prefix_caching
        self._blocks = num_blocks + reserve
        self._cache = model.backend.new_cache(
            CacheShape(model.config.num_layers, self._blocks, block_size), model.shape
        )
        self._forward = model.backend.compile(model.forward, self._cache, block_size, model.shape, model.rope)

    def table(self) -> BlockTable:
        """An empty block table for one request."""
        return BlockTable(self.pool, self.block_size, prefix_caching=self._prefix_caching)

    def reclaim(self) -> bool:
        """Take the pool's reserve back, with its memory; False, with nothing changed, if it is in use."""
        if not self.pool.reclaim():
            return False
        self._forget_from(self.pool.num_blocks)
        return True

    def close(self) -> None:
        """Give the cache's memory back; the runner is of no use afterwards.

        Dropping it would not do: a freed tensor of some megabytes may stay in the process's heap.
        """
        self._forget_from(0)

    @torch.inference_mode()
    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Compute the spans' rows; float32 logits [sum of logit_rows, vocab]."""
        return self._forward(spans)

    def _forget_from(self, block: int) -> None:
        """Free the memory of this block and of those behind it."""
        for layer in self._cache:
            for tensor in (layer.keys, layer.values):  # blocks, or their slots, come first
                release_pages(tensor[len(tensor) // self._blocks * block :])


def block_bytes(model: Llama, block_size: int) -> int:
    """Bytes of K and V that one block takes."""
    config = model.config
    positions = 2 * config.num_layers * block_size
    return positions * config.num_kv_heads * config.head_dim * model.backend.cache_dtype.itemsize
