"""An EAGLE-3 head (Li et al., 2025): one decoder layer that reads the target's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.llama import Llama
from outrider.models.runner import PagedRunner
from outrider.ops.base import AttentionShape, Backend, Ops, Passed, Rope, Value
from outrider.ops.batch import Span
from outrider.quantization.weight import Weight


class Eagle3:
    """The head. Row i reads what the target knows at position i and the token after it, and says the token
    after that; while drafting, the head's own state stands in for the target's.

    target: embedding table and output layer are its own where the head has none, as its backend packed them.
    Raises ModelError, from the checkpoint, for a tensor that is missing or has the wrong shape.
    """

    def __init__(self, checkpoint: HeadCheckpoint, backend: Backend, target: Llama) -> None:
        self.config = config = checkpoint.config
        decoder = config.decoder
        self.backend = backend
        self.num_layers = 1
        self.shape = AttentionShape(
            decoder.num_heads, decoder.num_kv_heads, decoder.head_dim, decoder.sliding_window
        )
        self.rope = Rope(torch.tensor(decoder.rope_inv_freq), decoder.rope_attention_factor)
        self.targets = checkpoint.targets().to(backend.device)
        """The target's id of each token that the head can say; int64 [draft vocab], ascending."""
        hidden = decoder.hidden_size

        def norm(name: str) -> Tensor:
            return checkpoint.tensor(f"{name}.weight").float().to(backend.device)

        def weight(name: str) -> Weight:
            return checkpoint.weight(f"{name}.weight")

        def biases(*names: str, there: bool) -> list[Tensor] | None:
            if not there:
                return None
            return [checkpoint.tensor(f"midlayer.{name}_proj.bias").float() for name in names]

        def packed(name: str, *, bias: bool) -> Any:
            return backend.pack([weight(f"midlayer.{name}_proj")], biases(name, there=bias))

        own = checkpoint.table()
        self._table = target.table if own is None else backend.table(own)
        self._output_norm = (target.norm.float(), target.config.rms_norm_eps) if config.reads_output else None
        self._joined_norm = norm("input_norm") if config.norm_before_fc else None
        self._state_norms = [norm(f"fc_norm.{i}") for i in range(config.num_states)] if config.fc_norm else []
        self._fc = None if config.reads_output else backend.pack([weight("fc")])
        self._input_norm = norm("midlayer.input_layernorm")
        self._hidden_norm = norm("midlayer.hidden_norm")
        # They read [embedding, state]; two products are summed, so that the two need not be put together.
        names = [f"self_attn.{name}" for name in "qkv"]
        qkv = [weight(f"midlayer.{name}_proj") for name in names]
        self._qkv_embedding = backend.pack(
            [w.columns(0, hidden) for w in qkv], biases(*names, there=decoder.attention_bias)
        )
        self._qkv_state = backend.pack([w.columns(hidden, 2 * hidden) for w in qkv])
        self._out = packed("self_attn.o", bias=decoder.attention_bias)
        self._post_norm = norm("midlayer.post_attention_layernorm")
        self._gate, self._up, self._down = (
            packed(f"mlp.{name}", bias=decoder.mlp_bias) for name in ("gate", "up", "down")
        )
        self._norm = norm("norm")
        if checkpoint.has_output:
            self._head = backend.pack([weight("lm_head")])
        else:
            self._head = backend.tied(self._table) if decoder.tie_word_embeddings else target.output

    def prepared(self, states: Tensor) -> Tensor:
        """What `read` gets of the target's states [rows, width], float32: where the head norms each state by
        itself, that is done."""
        if not self._state_norms:
            return states
        eps = self.config.decoder.rms_norm_eps
        parts = states.chunk(len(self._state_norms), dim=-1)
        return torch.cat(
            [F.rms_norm(x, w.shape, w, eps) for x, w in zip(parts, self._state_norms, strict=True)], dim=-1
        )

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """From `prepared` states [rows, width]: draft logits of the rows that want them, and beside them what
        the head goes on from."""
        states = ops.input(self.config.width)
        if self._output_norm is not None:
            states = ops.rms_norm(states, *self._output_norm)
        if self._joined_norm is not None:
            states = ops.rms_norm(states, self._joined_norm, self.config.decoder.rms_norm_eps)
        return self._layer(ops, cache, states if self._fc is None else ops.linear(states, self._fc))

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """The same from the head's own states [rows, hidden]."""
        return self._layer(ops, cache, ops.input(self.config.decoder.hidden_size))

    def _layer(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], state: Value) -> Value:
        (kv,) = cache
        eps = self.config.decoder.rms_norm_eps
        embedded = ops.rms_norm(ops.embed(self._table), self._input_norm, eps)
        read = ops.rms_norm(state, self._hidden_norm, eps)
        qkv = ops.linear(read, self._qkv_state, residual=ops.linear(embedded, self._qkv_embedding))
        attended = ops.attend(ops.rotate_and_store(qkv, kv), kv)
        added_to = read if self.config.norm_before_residual else state
        x = ops.linear(attended, self._out, residual=added_to)
        gated = ops.gated(ops.rms_norm(x, self._post_norm, eps), self._gate, self._up)
        x = ops.select_logit_rows(ops.linear(gated, self._down, residual=x))
        normed = ops.rms_norm(x, self._norm, eps)
        ops.keep(normed if self.config.norm_output else x)
        return ops.linear(normed, self._head)


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
        """states: the target's, float32 [rows, width]; draft logits, and what the head goes on from, of the
        rows that want logits."""
        return self._read(spans, self.head.prepared(states))

    @torch.inference_mode()
    def go_on(self, spans: Sequence[Span], states: Tensor) -> Passed:
        """The same from what the head goes on from, float32 [rows, hidden]."""
        return self._go_on(spans, states)
