"""The layer that a checkpoint brings for multi-token prediction (MTP), as a head that drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.cache.store import LayerCache
from outrider.errors import ModelError
from outrider.loading import Listener, unheard
from outrider.models.checkpoint import Checkpoint
from outrider.models.leaves import Source, load
from outrider.models.model import Model
from outrider.models.mtp_parts import MtpParts
from outrider.ops.base import Backend, Ops, Value
from outrider.ops.shapes import AttentionShape


class Mtp:
    """A `DraftHead` over the target's whole vocabulary. It reads what the target's output layer reads, and
    goes on from what its own output layer would, as in vLLM, SGLang and llama.cpp.

    source: of its tensors, which the target's checkpoint is. target: embedding table and output layer are its
    own, as its backend packed them. Raises ModelError, from the source, for a tensor that cannot be read.
    """

    def __init__(
        self,
        parts: MtpParts,
        source: Source,
        backend: Backend,
        target: Model,
        *,
        listener: Listener = unheard,
    ) -> None:
        self.parts = parts
        self.backend = backend
        self.targets: NDArray[np.int64] = np.arange(target.config.vocab_size)
        self.max_position_embeddings = target.config.max_position_embeddings
        self._target = target
        self._loaded = load(
            parts, source, backend, name="the layer that predicts further tokens", listener=listener
        )

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        return tuple(shape for shape in self.cached if isinstance(shape, AttentionShape))

    @property
    def cached(self) -> Sequence[Any]:
        return self.parts.block.attention.mixer.cached

    @property
    def states_width(self) -> int:
        return self._target.config.hidden_size

    @property
    def width(self) -> int:
        return self.parts.width

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """See `DraftHead`. The states are what the target's last layer leaves."""
        states = ops.input(self.states_width)
        return self._layer(ops, cache, ops.norm(states, self._target.norm, self._target.tree.norm.eps))

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        return self._layer(ops, cache, ops.input(self.states_width))

    def _layer(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        parts, loaded, tree = self.parts, self._loaded, self._target.tree
        embedded = parts.embedding_norm.forward(ops, loaded, ops.embed(self._target.table, tree.scale))
        read = parts.state_norm.forward(ops, loaded, state)
        x = ops.linear(read, loaded[parts.of_state], ops.linear(embedded, loaded[parts.of_embedding]))
        x = parts.block.forward(ops, loaded, x, cache)
        normed = parts.norm.forward(ops, loaded, ops.select_logit_rows(x))
        ops.keep(normed)
        logits = ops.linear(normed, self._target.output, None, tree.logit_scale)
        return logits if tree.logit_cap is None else ops.soft_cap(logits, tree.logit_cap)


def has_mtp(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint brings a layer that can draft for it, which its header and settings say."""
    return checkpoint.config.mtp is not None


def mtp_of(checkpoint: Checkpoint, name: str) -> MtpParts:
    """The layer that the checkpoint of the target `name` brings. Raises ModelError where there is none that
    is known, and for a tensor of it that is missing or of another shape."""
    parts = checkpoint.config.mtp
    if parts is None:
        raise ModelError(
            f"speculative_model = 'mtp': {name!r} brings no layer for multi-token prediction (MTP), or "
            "none of a kind that is known; give another drafter, such as 'suffix'"
        )
    checkpoint.check(parts)
    return parts
