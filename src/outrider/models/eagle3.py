"""An EAGLE-3 head (Li et al., 2025): a decoder layer or several that read the target's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.cache.store import LayerCache
from outrider.loading import Listener, unheard
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.leaves import load
from outrider.models.model import Model
from outrider.models.runner import PagedRunner
from outrider.ops.base import Backend, Ops, Value
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.shapes import AttentionShape, HeadVectors
from outrider.ops.span import Span


class Eagle3:
    """The head. Row i reads what the target knows at position i and the token after it, and says the token
    after that; while drafting, the head's own state stands in for the target's.

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
        """The target's id of each token that the head can say; int64 [draft vocab], ascending."""
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
        """Numbers of a row that a pass holds at once."""
        return self.parts.width

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """From the target's states [rows, width]: draft logits of the rows that want them, and beside them
        what the head goes on from."""
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
        """The same from the head's own states [rows, hidden]."""
        return self._layers(ops, cache, ops.input(self.config.sizes.hidden))

    def _layers(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        parts, loaded = self.parts, self._loaded
        embedded = parts.embedding_norm.forward(ops, loaded, ops.embed(self._table))
        read = parts.state_norm.forward(ops, loaded, state)
        qkv = ops.linear(read, loaded[parts.qkv_state], ops.linear(embedded, loaded[parts.qkv_embedding]))
        attended = ops.attend(qkv, cache[0], parts.shape, HeadVectors())
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


class HeadRunner(PagedRunner):
    """Drafts with a head over a cache of its own, for a target with a vocabulary of so many tokens. The
    tokens of a span are those after its rows."""

    def __init__(self, head: Eagle3, *, num_blocks: int | Sequence[int], block_size: int, vocab: int) -> None:
        # What a head caches at a position depends on the states that it was given, not on tokens alone.
        super().__init__(head, num_blocks=num_blocks, block_size=block_size, prefix_caching=False)
        self._vocab = vocab
        self.exchange(head)

    def exchange(self, head: Eagle3) -> None:
        """Draft with another head of the same shape, on the same backend, over the same cache."""
        self.head = self._paged = head
        words = Words(self._vocab, head.targets)
        self.reads, self.goes_on = self.compile(head.read), self.compile(head.go_on)
        self._read = head.backend.chain(self.reads, self.goes_on, words)
        self._go_on = head.backend.chain(self.goes_on, self.goes_on, words)

    def read(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """Drafts behind the target's states [rows of all spans, width]: `outrider.ops.lane.DraftChain`."""
        return self._read(lanes, states)

    def go_on(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """The same from what drafts go on from, `Grown.state`, [lanes, width]."""
        return self._go_on(lanes, states)
