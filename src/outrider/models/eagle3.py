"""An EAGLE-3 head (Li et al., 2025): a decoder layer or several that read the target's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.cache.store import LayerCache
from outrider.loading import Listener, unheard
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.leaves import load
from outrider.models.model import Model
from outrider.ops.base import Backend, Ops, Value
from outrider.ops.shapes import AttentionShape, HeadVectors


class Eagle3:
    """A `DraftHead`.

    target: embedding table and output layer are its own where the head has none, as its backend packed them.
    name: of the head, for the listener. Raises ModelError, from the checkpoint, for a tensor that is missing
    or has the wrong shape.
    """

    def __init__(
        self,
        checkpoint: HeadCheckpoint,
        backend: Backend,
        target: Model,
        *,
        name: str = "",
        listener: Listener = unheard,
    ) -> None:
        self.config = checkpoint.config
        self.parts = parts = checkpoint.parts
        self.backend = backend
        self.targets = checkpoint.targets()
        self._loaded = load(parts, checkpoint, backend, name=name, listener=listener)
        norms = parts.state_norms
        self._state_norms = backend.join([self._loaded[norm.weight] for norm in norms]) if norms else None
        self._table = self._loaded[parts.table] if parts.table else target.table
        self._read_norm = (target.norm, target.tree.norm.eps) if self.config.reads_output else None
        # A target's output layer comes with what the target does to its logits.
        self._logit_scale, self._logit_cap = 1.0, None
        if parts.output is not None:
            self._output = self._loaded[parts.output]
        elif self.config.tie_word_embeddings:
            self._output = backend.tied(self._table)
        else:
            self._output = target.output
            self._logit_scale, self._logit_cap = target.tree.logit_scale, target.tree.logit_cap

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        """The attention of each of its layers."""
        further = (shape for block in self.parts.further for shape in block.attention.mixer.cached)
        return (self.parts.shape, *(shape for shape in further if isinstance(shape, AttentionShape)))

    @property
    def cached(self) -> Sequence[AttentionShape]:
        return self.shapes

    @property
    def width(self) -> int:
        return self.parts.width

    @property
    def max_position_embeddings(self) -> int:
        return self.config.max_position_embeddings

    @property
    def states_width(self) -> int:
        return self.config.width

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        parts, loaded = self.parts, self._loaded
        states = ops.input(self.config.width)
        if parts.state_norms:  # each state by itself
            states = ops.norm_heads(
                states, self._state_norms, len(parts.state_norms), parts.state_norms[0].eps
            )
        if self._read_norm is not None:
            states = ops.norm(states, *self._read_norm)
        if parts.joined_norm is not None:
            states = parts.joined_norm.forward(ops, loaded, states)
        return self._layers(ops, cache, states if parts.fc is None else ops.linear(states, loaded[parts.fc]))

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        return self._layers(ops, cache, ops.input(self.config.sizes.hidden))

    def _layers(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        parts, loaded = self.parts, self._loaded
        embedded = parts.embedding_norm.forward(ops, loaded, ops.embed(self._table))
        read = parts.state_norm.forward(ops, loaded, state)
        qkv = ops.linear(read, loaded[parts.qkv_state], ops.linear(embedded, loaded[parts.qkv_embedding]))
        vectors = HeadVectors(*(leaf and loaded[leaf] for leaf in (parts.q_norm, parts.k_norm)))
        attended = ops.attend(qkv, cache[0], parts.shape, vectors)
        added_to = read if self.config.norm_before_residual else state
        x = ops.linear(attended, loaded[parts.out], added_to)
        x = parts.feed_forward.forward(ops, loaded, x, ())
        for block, own in zip(parts.further, cache[1:], strict=True):
            x = block.forward(ops, loaded, x, (own,))
        x = ops.select_logit_rows(x)
        normed = parts.norm.forward(ops, loaded, x)
        ops.keep(normed if self.config.norm_output else x)
        logits = ops.linear(normed, self._output, None, self._logit_scale)
        return logits if self._logit_cap is None else ops.soft_cap(logits, self._logit_cap)
