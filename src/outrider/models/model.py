"""A language model that is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from outrider.cache.pages import release_freed
from outrider.loading import Listener, unheard
from outrider.models.config import ModelConfig
from outrider.models.leaves import Leaf, Loaded, Rows, Source, Table, Tied, Vector, load
from outrider.ops.base import Backend, Ops, Value
from outrider.ops.shapes import AttentionShape, StateShape


class Weights(Source, Protocol):
    """The tensors of a model, and what it is made of."""

    @property
    def config(self) -> ModelConfig: ...


class Model:
    """A decoder in a backend.

    given: leaves that another model of the same checkpoint has loaded. own_output: a table that is the output
    layer too is loaded for that once more, in the backend's format. words: how many tokens, the first
    ones, a draft mostly says; None: all. name: of the model, for the listener.

    Raises ModelError, from the checkpoint, for a tensor that cannot be read.
    """

    def __init__(
        self,
        checkpoint: Weights,
        backend: Backend,
        given: Loaded | None = None,
        *,
        own_output: bool = False,
        words: int | None = None,
        name: str = "",
        listener: Listener = unheard,
    ) -> None:
        self.config: ModelConfig = checkpoint.config
        self.backend = backend
        tree = self.config.tree
        if own_output and isinstance(tree.output, Tied):
            tree = replace(tree, output=replace(tree.output, own=True))
        self.tree = tree
        self._loaded = load(tree, checkpoint, backend, given, name=name, listener=listener)
        self.words = tree.vocab_size if words is None else min(words, tree.vocab_size)
        self.some_outputs: Callable[[Rows], Any] | None = None
        """Packs the output layer of some tokens, where not all are said."""
        if self.words < tree.vocab_size:
            self.some_outputs = tree.output.some(checkpoint, backend)
        release_freed()

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        """The attention of each layer that keeps K and V."""
        return self.tree.attention_shapes

    @property
    def cached(self) -> Sequence[AttentionShape | StateShape]:
        """What all layers keep, in their order."""
        return self.tree.cached

    @property
    def table(self) -> Any:
        """The embedding table, as the backend has packed it."""
        return self._loaded[self.tree.table]

    @property
    def output(self) -> Any:
        """The output layer, as the backend has packed it."""
        return self._loaded[self.tree.output]

    @property
    def norm(self) -> Any:
        """The weight of the norm of what the output layer reads, as the backend has it."""
        return self._loaded[self.tree.norm.weight]

    @property
    def linear(self) -> Any:
        """A linear layer, as the backend has packed it: one that stands for all."""
        return self._loaded[self.tree.linear]

    def packed(self, leaf: Leaf) -> Any:
        """A leaf of the tree, as the backend has it."""
        return self._loaded[leaf]

    def shared(self) -> Loaded:
        """What a model of the same checkpoint, in other formats, takes from this one: vectors and tables."""
        kept = (leaf for leaf in self._loaded if isinstance(leaf, Vector | Table))
        return {leaf: self._loaded[leaf] for leaf in kept}

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        cache: Sequence[Any],
        *,
        state_layers: Sequence[int] = (),
        output: Any = None,
    ) -> Value:
        """See `outrider.models.parts.Decoder.forward`."""
        return self.tree.forward(ops, self._loaded, cache, state_layers=state_layers, output=output)

    def hidden(self, ops: Ops[Value, Any, Any], cache: Sequence[Any]) -> Value:
        """See `outrider.models.parts.Decoder.hidden`."""
        return self.tree.hidden(ops, self._loaded, cache)
