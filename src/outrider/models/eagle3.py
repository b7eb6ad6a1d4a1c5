"""An EAGLE-3 head (Li et al., 2025): one decoder layer that reads the target's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.runner import PagedRunner
from outrider.ops.base import AttentionShape, Backend, Ops, Passed, Rope, Value
from outrider.ops.batch import Span
from outrider.quantization.weight import Weight


class Eagle3:
    """The head. Row i reads what the target knows at position i and the token after it, and says the token
    after that; while drafting, the head's own state stands in for the target's.

    table: the target's embedding table as its backend packed it, for a head that has none of its own.
    Raises ModelError, from the checkpoint, for a tensor that is missing or has the wrong shape.
    """

    def __init__(self, checkpoint: HeadCheckpoint, backend: Backend, table: Any) -> None:
        self.config = checkpoint.config
        decoder = self.config.decoder
        self.backend = backend
        self.num_layers = 1
        self.shape = AttentionShape(decoder.num_heads, decoder.num_kv_heads, decoder.head_dim, None)
        self.rope = Rope(torch.tensor(decoder.rope_inv_freq), decoder.rope_attention_factor)
        self.targets = checkpoint.targets().to(backend.device)
        """The target's id of each token that the head can say; int64 [draft vocab], ascending."""
        hidden = decoder.hidden_size

        def norm(name: str) -> Tensor:
            return checkpoint.tensor(f"{name}.weight").float().to(backend.device)

        def packed(*weights: Weight) -> Any:
            return backend.pack(list(weights))

        def weight(name: str) -> Weight:
            return checkpoint.weight(f"{name}.weight")

        own = checkpoint.table()
        self._table = table if own is None else backend.table(own)
        self._fc = packed(weight("fc"))
        self._input_norm = norm("midlayer.input_layernorm")
        self._hidden_norm = norm("midlayer.hidden_norm")
        # They read [embedding, state]; two products are summed, so that the two need not be put together.
        qkv = [weight(f"midlayer.self_attn.{name}_proj") for name in "qkv"]
        self._qkv_embedding = packed(*(w.columns(0, hidden) for w in qkv))
        self._qkv_state = packed(*(w.columns(hidden, 2 * hidden) for w in qkv))
        self._out = packed(weight("midlayer.self_attn.o_proj"))
        self._post_norm = norm("midlayer.post_attention_layernorm")
        self._gate, self._up, self._down = (
            packed(weight(f"midlayer.mlp.{name}_proj")) for name in ("gate", "up", "down")
        )
        self._norm = norm("norm")
        self._head = packed(weight("lm_head"))

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """From the target's states [rows, 3 target hidden]: draft logits of the rows that want them, and
        beside them the head's own states."""
        states = ops.input(3 * self.config.target_hidden_size)
        return self._layer(ops, cache, ops.linear(states, self._fc))

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """The same from the head's own states [rows, hidden]."""
        return self._layer(ops, cache, ops.input(self.config.decoder.hidden_size))

    def _layer(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        (kv,) = cache
        eps = self.config.decoder.rms_norm_eps
        embedded = ops.rms_norm(ops.embed(self._table), self._input_norm, eps)
        normed = ops.rms_norm(state, self._hidden_norm, eps)
        qkv = ops.linear(normed, self._qkv_state, residual=ops.linear(embedded, self._qkv_embedding))
        attended = ops.attend(ops.rotate_and_store(qkv, kv), kv)
        added_to = normed if self.config.norm_before_residual else state
        x = ops.linear(attended, self._out, residual=added_to)
        gated = ops.gated(ops.rms_norm(x, self._post_norm, eps), self._gate, self._up)
        x = ops.select_logit_rows(ops.linear(gated, self._down, residual=x))
        ops.keep(x)
        return ops.linear(ops.rms_norm(x, self._norm, eps), self._head)


class HeadRunner(PagedRunner):
    """Runs ragged passes of a head over a cache of its own. The tokens of a span are those after its rows."""

    def __init__(self, head: Eagle3, *, num_blocks: int, block_size: int) -> None:
        # What a head caches at a position depends on the states that it was given, not on tokens alone.
        super().__init__(head, num_blocks=num_blocks, block_size=block_size, prefix_caching=False)
        self.head = head
        self._read = self.compile(head.read)
        self._go_on = self.compile(head.go_on)

    @torch.inference_mode()
    def read(self, spans: Sequence[Span], states: Tensor) -> Passed:
        """states: the target's, float32 [rows, 3 target hidden]; draft logits, and the head's states, of the
        rows that want logits."""
        return self._read(spans, states)

    @torch.inference_mode()
    def go_on(self, spans: Sequence[Span], states: Tensor) -> Passed:
        """The same from the head's own states, float32 [rows, hidden]."""
        return self._go_on(spans, states)
