"""A Gemma 4 assistant: a few layers that draft from the target's last state, and attend to the target's K and
V."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from outrider.cache.store import LayerCache
from outrider.errors import ModelError
from outrider.loading import Listener, unheard
from outrider.models.assistant_checkpoint import AssistantCheckpoint
from outrider.models.leaves import load
from outrider.models.model import Model
from outrider.models.parts import Attention
from outrider.models.runner import ModelRunner
from outrider.ops.base import Backend, Ops, Value
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.shapes import AttentionShape
from outrider.ops.span import Span


class Assistant:
    """The assistant. It has no cache. A row stands for the token behind the target's last computed position:
    it reads that token and what the target knew before it, or the assistant's own state, and sees the
    target's K and V.

    `sources`: of each of its layers the target's whose K and V it sees, by its number among those that have
    some: the last that attends as far. name: for the listener. Raises ModelError for one that was made for
    another target."""

    def __init__(
        self,
        checkpoint: AssistantCheckpoint,
        backend: Backend,
        target: Model,
        *,
        name: str = "",
        listener: Listener = unheard,
    ) -> None:
        self.backend = backend
        self.backbone = checkpoint.backbone
        self.parts = checkpoint.parts
        self.vocab_size = checkpoint.vocab_size
        self.sources = tuple(_source(shape, target.shapes, checkpoint) for shape in self.shapes)
        for what, of_assistant, of_target in (
            ("hidden size", checkpoint.backbone, target.tree.hidden_size),
            ("vocabulary size", checkpoint.vocab_size, target.tree.vocab_size),
        ):
            if of_assistant != of_target:
                raise _unfit(
                    checkpoint, f"its target's {what} is {of_assistant}, and {of_target} is this one's"
                )
        self._loaded = load(self.parts, checkpoint, backend, name=name, listener=listener)
        self._table, self._scale = target.table, target.tree.scale
        self._read_norm = target.norm, target.tree.norm.eps
        self._logit_cap = checkpoint.logit_cap

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        """The attention of each layer, to the target's K and V."""
        mixers = (block.attention.mixer for block in self.parts.blocks)
        return [mixer.shape for mixer in mixers if isinstance(mixer, Attention)]

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """From what the target's last layer left [rows, backbone]: the logits of the rows that want them, and
        beside them the states that a draft goes on from."""
        return self._layers(ops, cache, ops.norm(ops.input(self.backbone), *self._read_norm))

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """The same from the assistant's own states [rows, backbone]."""
        return self._layers(ops, cache, ops.input(self.backbone))

    def _layers(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        parts, loaded = self.parts, self._loaded
        embedded = ops.embed(self._table, self._scale)
        x = ops.linear(state, loaded[parts.of_state], ops.linear(embedded, loaded[parts.of_embedding]))
        for block, seen in zip(parts.blocks, cache, strict=True):
            x = block.forward(ops, loaded, x, (seen,))
        normed = parts.norm.forward(ops, loaded, ops.select_logit_rows(x))
        ops.keep(ops.linear(normed, loaded[parts.after]))
        logits = ops.linear(normed, loaded[parts.output])
        return logits if self._logit_cap is None else ops.soft_cap(logits, self._logit_cap)


class AssistantRunner:
    """Drafts with an assistant over the cache of its target, of which it changes nothing."""

    def __init__(self, assistant: Assistant, target: ModelRunner) -> None:
        backend, words = assistant.backend, Words(target.model.config.vocab_size)
        make = partial(target.compile_over, backend, layers=assistant.sources)
        reads, goes_on = make(assistant.read), make(assistant.go_on)
        self._read = backend.chain(reads, goes_on, words, in_place=True)
        self._go_on = backend.chain(goes_on, goes_on, words, in_place=True)

    def read(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """Drafts behind the target's states [lanes, backbone]: `outrider.ops.lane.DraftChain`."""
        return self._read(lanes, states)

    def go_on(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """The same from what drafts go on from, `Grown.state`."""
        return self._go_on(lanes, states)


def _source(shape: AttentionShape, target: Sequence[AttentionShape], checkpoint: AssistantCheckpoint) -> int:
    """The number of the target's last layer that attends as far as this one and has K and V."""
    last = [number for number, other in enumerate(target) if (other.window is None) == (shape.window is None)]
    if not last:
        raise _unfit(checkpoint, "it sees a window in some layers and all in others, and this one does not")
    found = target[last[-1]]
    if (found.kv_heads, found.head_dim) != (shape.kv_heads, shape.head_dim):
        raise _unfit(
            checkpoint,
            f"it sees K and V of {shape.kv_heads} heads of {shape.head_dim} dimensions, and this one's have "
            f"{found.kv_heads} of {found.head_dim}",
        )
    if shape.window is not None and found.window is not None and shape.window >= found.window:
        raise _unfit(checkpoint, f"it sees {shape.window + 1} positions, and this one keeps {found.window}")
    return last[-1]


def _unfit(checkpoint: AssistantCheckpoint, why: str) -> ModelError:
    return ModelError(f"the assistant {str(checkpoint.path)!r} was not made for this target: {why}")
