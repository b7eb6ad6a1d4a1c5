"""The Llama family: Llama 2 and 3, SmolLM2, Mistral, TinyLlama."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.cache.store import KVStore
from outrider.models.checkpoint import Checkpoint
from outrider.ops.base import AttentionShape, Ops, Rope
from outrider.ops.batch import Batch


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; q, k, v and gate, up are joined to be read in one pass each."""

    input_norm: Tensor
    qkv: Any
    out: Any
    post_norm: Tensor
    gate_up: Any
    down: Any


class Llama:
    """Pre-norm decoder with rotary embedding, grouped queries and a SiLU-gated feed-forward.

    Raises ModelError, from the checkpoint, for a tensor that is missing or has the wrong shape.
    """

    def __init__(self, checkpoint: Checkpoint, ops: Ops[Any, Any]) -> None:
        self.config = config = checkpoint.config
        self.ops = ops
        self._shape = AttentionShape(
            config.num_heads, config.num_kv_heads, config.head_dim, config.sliding_window
        )
        self._rope = Rope(torch.tensor(config.rope_inv_freq), config.rope_attention_factor)

        def plain(name: str) -> Tensor:
            return checkpoint.tensor(name).to(ops.device, ops.dtype)

        def packed(prefix: str, *names: str, bias: bool) -> Any:
            weights = [checkpoint.tensor(f"{prefix}.{name}.weight") for name in names]
            biases = [checkpoint.tensor(f"{prefix}.{name}.bias") for name in names] if bias else None
            return ops.pack(torch.cat(weights), None if biases is None else torch.cat(biases))

        self._embedding = plain("model.embed_tokens.weight")
        self._layers = tuple(
            Layer(
                input_norm=plain(f"{prefix}.input_layernorm.weight"),
                qkv=packed(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=config.attention_bias),
                out=packed(f"{prefix}.self_attn", "o_proj", bias=config.attention_bias),
                post_norm=plain(f"{prefix}.post_attention_layernorm.weight"),
                gate_up=packed(f"{prefix}.mlp", "gate_proj", "up_proj", bias=config.mlp_bias),
                down=packed(f"{prefix}.mlp", "down_proj", bias=config.mlp_bias),
            )
            for prefix in (f"model.layers.{i}" for i in range(config.num_layers))
        )
        self._norm = plain("model.norm.weight")
        tied = config.tie_word_embeddings
        self._head = ops.pack(self._embedding if tied else checkpoint.tensor("lm_head.weight"))

    def forward(self, batch: Batch, cache: KVStore) -> Tensor:
        """Write the rows' K and V to `cache`; return float32 logits [len(batch.logit_rows), vocab]."""
        ops, eps = self.ops, self.config.rms_norm_eps
        plan = ops.plan(batch, self._shape, self._rope)
        x = ops.embed(batch.tokens, self._embedding)
        for layer, kv in zip(self._layers, cache.layers, strict=True):
            qkv = ops.linear(ops.rms_norm(x, layer.input_norm, eps), layer.qkv)
            q = ops.rotate_and_store(qkv, plan, kv)
            x = x + ops.linear(ops.attend(q, plan, kv), layer.out)
            gate_up = ops.linear(ops.rms_norm(x, layer.post_norm, eps), layer.gate_up)
            x = x + ops.linear(ops.gate(gate_up), layer.down)
        x = ops.rms_norm(x.index_select(0, batch.logit_rows), self._norm, eps)
        return ops.linear(x, self._head).float()
