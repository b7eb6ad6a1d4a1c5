"""Models with a paged cache of their own: the target, a draft model, and a head are each one of these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from outrider.cache.pages import release_pages
from outrider.cache.pool import BlockPool
from outrider.cache.table import BlockTable
from outrider.models.llama import Llama
from outrider.ops.base import AttentionShape, Backend, CacheShape, Definition, Forward, Passed, Rope
from outrider.ops.batch import Span


class Cached(Protocol):
    """A model whose layers attend to a cache."""

    @property
    def backend(self) -> Backend: ...

    @property
    def shape(self) -> AttentionShape: ...

    @property
    def rope(self) -> Rope: ...

    @property
    def num_layers(self) -> int: ...


class PagedRunner:
    """`num_blocks` cache blocks of `block_size` positions for a model, and passes over them.

    reserve: blocks beyond these, which on the CPU take no memory before `pool.lend` and after `reclaim`.
    """

    def __init__(
        self, model: Cached, *, num_blocks: int, block_size: int, prefix_caching: bool, reserve: int = 0
    ) -> None:
        self.pool = BlockPool(num_blocks, reserve)
        self.block_size = block_size
        self._paged = model
        self._prefix_caching = prefix_caching
        self._blocks = num_blocks + reserve
        self._cache = model.backend.new_cache(
            CacheShape(model.num_layers, self._blocks, block_size), model.shape
        )

    def compile(self, definition: Definition) -> Forward:
        """A pass over this cache."""
        model = self._paged
        return model.backend.compile(definition, self._cache, self.block_size, model.shape, model.rope)

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

    def _forget_from(self, block: int) -> None:
        """Free the memory of this block and of those behind it."""
        for layer in self._cache:
            for tensor in (layer.keys, layer.values):  # blocks, or their slots, come first
                release_pages(tensor[len(tensor) // self._blocks * block :])


class ModelRunner(PagedRunner):
    """Runs ragged forward passes of a language model.

    state_layers: the layers whose inputs a pass hands out (`Llama.forward`).
    """

    def __init__(
        self,
        model: Llama,
        *,
        num_blocks: int,
        block_size: int,
        prefix_caching: bool,
        reserve: int = 0,
        state_layers: Sequence[int] = (),
    ) -> None:
        super().__init__(
            model,
            num_blocks=num_blocks,
            block_size=block_size,
            prefix_caching=prefix_caching,
            reserve=reserve,
        )
        self.model = model
        self._forward = self.compile(partial(model.forward, state_layers=tuple(state_layers)))

    @torch.inference_mode()
    def run(self, spans: Sequence[Span]) -> Passed:
        """Compute the spans' rows: logits [sum of logit_rows, vocab], states [rows, layers * hidden]."""
        return self._forward(spans)

    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Compute the spans' rows; float32 logits [sum of logit_rows, vocab]."""
        return self.run(spans).logits


def block_bytes(model: Cached, block_size: int) -> int:
    """Bytes of K and V that one block takes."""
    positions = 2 * model.num_layers * block_size
    return positions * model.shape.kv_heads * model.shape.head_dim * model.backend.cache_dtype.itemsize
