"""The Llama family: Llama 2 and 3, SmolLM2, Mistral, TinyLlama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.cache.pages import release_freed
from outrider.cache.store import LayerCache
from outrider.models.checkpoint import Checkpoint
from outrider.ops.base import AttentionShape, Backend, Ops, Rope, Value


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; q, k and v are joined to be read in one pass."""

    input_norm: Tensor
    qkv: Any
    out: Any
    post_norm: Tensor
    gate: Any
    up: Any
    down: Any


@dataclass(frozen=True)
class Shared:
    """What a model takes from another one of the same checkpoint, rather than load it again.

    norms: by name. table: to look tokens up in; output: whether it serves as the output layer too, if the
    checkpoint ties the two.
    """

    norms: Mapping[str, Tensor]
    table: Any
    output: bool


class Llama:
    """Pre-norm decoder with rotary embedding, grouped queries and a SiLU-gated feed-forward.

    Raises ModelError, from the checkpoint, for a tensor that is missing or has the wrong shape.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend, shared: Shared | None = None) -> None:
        self.config = config = checkpoint.config
        self.backend = backend
        self.shape = AttentionShape(
            config.num_heads, config.num_kv_heads, config.head_dim, config.sliding_window
        )
        self.rope = Rope(torch.tensor(config.rope_inv_freq), config.rope_attention_factor)

        self._norms: dict[str, Tensor] = {} if shared is None else dict(shared.norms)

        def norm(name: str) -> Tensor:
            if name not in self._norms:
                self._norms[name] = checkpoint.tensor(f"{name}.weight").to(backend.device)
            return self._norms[name]

        def packed(prefix: str, *names: str, bias: bool) -> Any:
            # One by one, so that the originals of all are not there at once.
            weights = (checkpoint.weight(f"{prefix}.{name}.weight") for name in names)
            biases = [checkpoint.tensor(f"{prefix}.{name}.bias") for name in names] if bias else None
            return backend.pack(weights, biases)

        def layer(prefix: str) -> Layer:
            release_freed()
            return Layer(
                input_norm=norm(f"{prefix}.input_layernorm"),
                qkv=packed(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=config.attention_bias),
                out=packed(f"{prefix}.self_attn", "o_proj", bias=config.attention_bias),
                post_norm=norm(f"{prefix}.post_attention_layernorm"),
                gate=packed(f"{prefix}.mlp", "gate_proj", bias=config.mlp_bias),
                up=packed(f"{prefix}.mlp", "up_proj", bias=config.mlp_bias),
                down=packed(f"{prefix}.mlp", "down_proj", bias=config.mlp_bias),
            )

        def table() -> Any:
            return backend.table(checkpoint.weight("model.embed_tokens.weight"))

        self.num_layers = config.num_layers
        # The largest weights first: what loading needs beside them passes while little else is loaded.
        self._table = table() if shared is None else shared.table
        if not config.tie_word_embeddings:
            self._head = backend.pack([checkpoint.weight("lm_head.weight")])
        else:
            self._head = backend.tied(self._table if shared is None or shared.output else table())
        self._layers = tuple(layer(f"model.layers.{i}") for i in range(config.num_layers))
        self._norm = norm("model.norm")
        release_freed()

    @property
    def table(self) -> Any:
        """The embedding table, as the backend has packed it."""
        return self._table

    @property
    def output(self) -> Any:
        """The output layer, as the backend has packed it."""
        return self._head

    @property
    def norm(self) -> Tensor:
        """The norm of what the output layer reads."""
        return self._norm

    @property
    def linear(self) -> Any:
        """A linear layer, as the backend has packed it: one that stands for all."""
        return self._layers[0].out

    def share(self, *, output: bool) -> Shared:
        """What a model of the same checkpoint can take from this one; see `Shared`."""
        return Shared(self._norms, self._table, output)

    def forward(
        self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache], *, state_layers: Sequence[int] = ()
    ) -> Value:
        """Write the rows' K and V to `cache`; the logits [rows with logits, vocab].

        state_layers: the layers whose inputs are kept, ascending; 0 is the embedding, `num_layers` what the
        last layer leaves.
        """
        eps = self.config.rms_norm_eps
        x = ops.embed(self._table)
        for number, (layer, kv) in enumerate(zip(self._layers, cache, strict=True)):
            if number in state_layers:
                ops.keep(x)
            qkv = ops.linear(ops.rms_norm(x, layer.input_norm, eps), layer.qkv)
            attended = ops.attend(ops.rotate_and_store(qkv, kv), kv)
            x = ops.linear(attended, layer.out, residual=x)
            gated = ops.gated(ops.rms_norm(x, layer.post_norm, eps), layer.gate, layer.up)
            x = ops.linear(gated, layer.down, residual=x)
        if self.num_layers in state_layers:
            ops.keep(x)
        x = ops.rms_norm(ops.select_logit_rows(x), self._norm, eps)
        return ops.linear(x, self._head)
