"""Models with a paged cache of their own: the target, a draft model, and a head are each one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.cache.division import GroupSize, Size, StateSize
from outrider.cache.groups import Group, groups_of
from outrider.cache.pool import BlockPool
from outrider.cache.pools import Pools
from outrider.cache.store import LayerCache
from outrider.cache.table import BlockTable
from outrider.errors import ModelError
from outrider.models.model import Model
from outrider.models.words import DraftWords
from outrider.ops.base import Backend, Definition, Facts, Forward, Passed
from outrider.ops.choice import Choice, Stepped
from outrider.ops.lane import Grown, Lane
from outrider.ops.shapes import AttentionShape, StateShape
from outrider.ops.span import Span

STATE_BYTES = 4  # of a number, float32


class Cached(Protocol):
    """A model whose layers attend to a cache."""

    @property
    def backend(self) -> Backend: ...

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        """The attention of each layer that keeps K and V."""

    @property
    def cached(self) -> Sequence[AttentionShape | StateShape]:
        """What all layers keep, in their order."""


def cache_groups(model: Cached) -> tuple[Group, ...]:
    """The groups of the model's layers."""
    return groups_of([shape.window for shape in model.shapes])


class PagedRunner:
    """Cache blocks of `block_size` positions for a model, and passes over them.

    num_blocks: of each group of layers (`cache_groups`), and last the slots for states where layers keep such
    (as `group_sizes` has them); or as many of each alike. reserve: of each beyond these, which on the CPU
    take no memory before `pool.lend` and after `reclaim`.
    """

    def __init__(
        self,
        model: Cached,
        *,
        num_blocks: int | Sequence[int],
        block_size: int,
        prefix_caching: bool,
        reserve: Sequence[int] = (),
    ) -> None:
        self._groups = cache_groups(model)
        self._states = [shape for shape in model.cached if not isinstance(shape, AttentionShape)]
        windows = [group.window for group in self._groups] + [None] * bool(self._states)
        alike = [num_blocks] * len(windows) if isinstance(num_blocks, int) else num_blocks
        pools = [
            BlockPool(own, spare, window)
            for own, spare, window in zip(alike, reserve or [0] * len(windows), windows, strict=True)
        ]
        self.pool = Pools(pools[:-1], pools[-1]) if self._states else Pools(pools)
        self.block_size = block_size
        self._paged = model
        self._prefix_caching = prefix_caching
        slots = pools[-1].size if self._states else 0
        self._state_caches = model.backend.new_states(slots, self._states)
        self._cache = self._new_cache()

    @property
    def facts(self) -> Facts:
        """The facts of the backend that computes it."""
        return self._paged.backend.facts

    def check_process(self) -> None:
        """Raises OutriderError in a process that cannot compute: see `Backend`."""
        self._paged.backend.check_process()

    def compile(self, definition: Definition) -> Forward:
        """A pass over this cache."""
        attended, states = iter(self._cache), iter(self._state_caches)
        caches = [
            next(attended) if isinstance(shape, AttentionShape) else next(states)
            for shape in self._paged.cached
        ]
        return self._paged.backend.compile(definition, caches, self.block_size)

    def table(self, salt: str | None = None) -> BlockTable:
        """An empty block table for one request, which finds blocks of the same salt alone."""
        return BlockTable(
            self.pool.of_groups,
            self.block_size,
            prefix_caching=self._prefix_caching,
            states=self.pool.states,
            salt=salt,
        )

    def reclaim(self) -> bool:
        """Take the pools' reserve back, with its memory; False, with nothing changed, if it is in use."""
        if not self.pool.reclaim():
            return False
        self._forget_from([pool.num_blocks for pool in self.pool.all])
        return True

    def close(self) -> None:
        """Give the cache's memory back, where that can be, with all that it holds: nobody may want that.

        Dropping the runner would not do: an array of some megabytes that is freed may stay in the process's
        heap.
        """
        self._forget_from([0] * len(self.pool.all))

    def _new_cache(self) -> Sequence[LayerCache]:
        """The cache of each layer, with as many blocks as its group has."""
        model, layers = self._paged, dict[int, LayerCache]()
        for number, (group, pool) in enumerate(zip(self._groups, self.pool.of_groups, strict=True)):
            shapes = [model.shapes[layer] for layer in group.layers]
            caches = model.backend.new_cache(pool.size, self.block_size, shapes)
            layers |= zip(group.layers, (replace(cache, group=number) for cache in caches), strict=True)
        return [layers[layer] for layer in range(len(layers))]

    def _forget_from(self, blocks: Sequence[int]) -> None:
        """Free the memory of these blocks of each pool and of those behind them."""
        release = self._paged.backend.release
        for layer in self._cache:
            size, first = self.pool.of_groups[layer.group].size, blocks[layer.group]
            for values in (layer.keys, layer.values):  # blocks, or their slots, come first
                release(values, len(values) // size * first)
        for states in self._state_caches:
            release(states.values, blocks[-1])


class ModelRunner(PagedRunner):
    """Runs ragged forward passes of a language model.

    state_layers: the layers whose inputs a pass hands out (`Decoder.forward`).
    """

    def __init__(
        self,
        model: Model,
        *,
        num_blocks: int | Sequence[int],
        block_size: int,
        prefix_caching: bool,
        reserve: Sequence[int] = (),
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
        self.hand_out(state_layers)

    def hand_out(self, state_layers: Sequence[int]) -> None:
        """Hand out the states of these layers from the next pass on; the cache stays."""
        self._state_layers = tuple(state_layers)
        self._compile()

    def forget(self) -> None:
        """As `close`, and go on with an empty cache and a new pass: one keeps room for as many rows as it has
        ever run."""
        self.close()
        self._compile()

    def _compile(self) -> None:
        self._forward = self.compile(self._definition)

    @property
    def _definition(self) -> Definition:
        return partial(self.model.forward, state_layers=self._state_layers)

    def compile_over(self, backend: Backend, definition: Definition, *, layers: Sequence[int]) -> Forward:
        """A pass of another model over the cache of these layers, of those that keep K and V."""
        return backend.compile(definition, [self._cache[layer] for layer in layers], self.block_size)

    def step(
        self, spans: Sequence[Span], choices: Sequence[Choice | None], *, looks: bool = False
    ) -> Stepped:
        """Compute the spans' rows and choose tokens; see `outrider.ops.base.Forward.step`."""
        return self._forward.step(spans, choices, looks=looks)

    def keep(self, table: BlockTable, known: int, path: Sequence[int]) -> None:
        """Keep a path of a tree, whose rows came behind `known` others: what was computed of them moves to
        where that of a chain would be."""
        straight = next((n for n, at in enumerate(path) if at != n), len(path))
        if straight < len(path):
            first = table.filled + known
            places = [first + number for number in path[straight:]]
            self._forward.move(table.tables, places, first + straight)
            table.move(places, first + straight)

    def run(self, spans: Sequence[Span]) -> Passed:
        """Compute the spans' rows: logits [sum of logit_rows, vocab], states [rows, layers * hidden]."""
        return self._forward(spans)

    def forward(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Compute the spans' rows; logits [sum of logit_rows, vocab]."""
        return self.run(spans).logits


class DraftRunner(ModelRunner):
    """A model that drafts, of which `words` says which tokens it can say."""

    def __init__(
        self,
        model: Model,
        *,
        num_blocks: int | Sequence[int],
        block_size: int,
        prefix_caching: bool,
        words: DraftWords,
    ) -> None:
        self._words = words
        super().__init__(model, num_blocks=num_blocks, block_size=block_size, prefix_caching=prefix_caching)

    def _compile(self) -> None:
        super()._compile()
        self._chain = self.model.backend.chain(self._forward, self._forward, self._words.words)

    @property
    def _definition(self) -> Definition:
        return partial(self.model.forward, output=self._words.output)

    def learn(self, tokens: Sequence[int]) -> None:
        """The model reads these, and may say them from now on."""
        self._words.learn(tokens)

    def readable(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens, as far as the model's table has them.

        What the target may say beyond its rows is padding. It hardly ever does; the model reads its first
        token there, since any guess will do.
        """
        rows = self.model.config.vocab_size
        return tokens if max(tokens) < rows else [token if token < rows else 0 for token in tokens]

    def draft(self, lanes: Sequence[Lane | Span]) -> list[Grown]:
        """Drafts behind what is read; see `outrider.ops.lane.DraftChain`."""
        if self._words.renew():
            self._compile()
        return self._chain(lanes)


def group_sizes(model: Cached, block_size: int, ahead: int, drafted: int) -> tuple[Size, ...]:
    """What a block of each group of layers takes, and last a slot for the states, where layers keep such.

    ahead: positions that a request adds at most until its next commit: a chunk of its prompt, and a draft;
    drafted: of the draft alone. Raises ModelError for a model whose layers all keep states.
    """
    head_bytes = model.backend.facts.head_bytes
    layers = [2 * block_size * shape.kv_heads * head_bytes(shape.head_dim) for shape in model.shapes]
    if not layers:
        raise ModelError("no layer of the model attends; one at least has to keep K and V")
    groups = tuple(
        GroupSize(group.window, ahead, block_size, sum(layers[layer] for layer in group.layers))
        for group in cache_groups(model)
    )
    states = sum(
        STATE_BYTES * prod(shape.state) for shape in model.cached if not isinstance(shape, AttentionShape)
    )
    if not states:
        return groups
    beside = sum(group.block_bytes for group in groups)
    return (*groups, StateSize(drafted + 2, block_size, states, beside))
