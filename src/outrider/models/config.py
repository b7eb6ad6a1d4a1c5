"""What a decoder of the Llama family is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from outrider.errors import ModelError

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM")
STATIC_ROPES = ("linear", "llama3", "yarn")  # their frequencies do not depend on the sequence's length
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class DecoderConfig:
    """Shapes and constants. rope_inv_freq: head_dim / 2 frequencies, scaling applied."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope_inv_freq: tuple[float, ...]
    rope_attention_factor: float
    sliding_window: int | None
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    dtype: torch.dtype

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model by its Hugging Face name."""
        hidden, inner = self.hidden_size, self.intermediate_size
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        linears = {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, hidden),
            "model.norm.weight": (hidden,),
        }
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, hidden)
        for i in range(self.num_layers):
            layer = f"model.layers.{i}"
            shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
            shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
            for name, shape in linears.items():
                shapes[f"{layer}.{name}.weight"] = shape
                if self.attention_bias if name.startswith("self_attn") else self.mlp_bias:
                    shapes[f"{layer}.{name}.bias"] = shape[:1]
        return shapes


def decoder_config(config: Any, source: str, generation: Mapping[str, Any] | None = None) -> DecoderConfig:
    """From a transformers configuration and, where there is one, the model's generation_config.json.

    Raises ModelError, naming `source`, for an architecture or a setting that this model code would get wrong.
    """
    architecture = (config.architectures or [type(config).__name__.replace("Config", "ForCausalLM")])[0]
    if architecture not in SUPPORTED:
        raise ModelError(
            f"{source}: architecture {architecture!r} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    if config.hidden_act != "silu":
        raise ModelError(f"{source}: activation {config.hidden_act!r} is not supported; supported is 'silu'")
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{source}: quantization_config is not supported; use unquantised safetensors or a GGUF file"
        )
    for name in SIZES:
        if getattr(config, name) < 1:
            raise ModelError(f"{source}: {name} = {getattr(config, name)}; it has to be at least 1")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.num_attention_heads % config.num_key_value_heads or head_dim % 2:
        raise ModelError(
            f"{source}: {config.num_attention_heads} heads of {head_dim} dimensions cannot share "
            f"{config.num_key_value_heads} K/V heads; heads must divide evenly and head_dim be even"
        )
    inv_freq, factor = _rope(config, head_dim, source)
    return DecoderConfig(
        architecture=architecture,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        rms_norm_eps=config.rms_norm_eps,
        max_position_embeddings=config.max_position_embeddings,
        rope_inv_freq=inv_freq,
        rope_attention_factor=factor,
        sliding_window=getattr(config, "sliding_window", None),
        attention_bias=bool(getattr(config, "attention_bias", False)),
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
        tie_word_embeddings=bool(config.tie_word_embeddings),
        eos_token_ids=_ids(config.eos_token_id, (generation or {}).get("eos_token_id")),
        dtype=config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32,
    )


def _rope(config: Any, head_dim: int, source: str) -> tuple[tuple[float, ...], float]:
    """Rotary frequencies and the factor on cos and sin, as transformers computes them."""
    parameters = config.rope_parameters
    kind = parameters.get("rope_type", "default")
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError(f"{source}: partial_rotary_factor is not supported; it has to be 1")
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        return tuple((1.0 / parameters["rope_theta"] ** exponents).tolist()), 1.0
    if kind not in STATIC_ROPES:
        raise ModelError(
            f"{source}: rope scaling {kind!r} is not supported; supported are default, "
            f"{', '.join(STATIC_ROPES)}"
        )
    inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    return tuple(inv_freq.tolist()), float(factor)


def _ids(*values: int | list[int] | None) -> tuple[int, ...]:
    ids: set[int] = set()
    for value in values:
        ids.update([value] if isinstance(value, int) else value or [])
    return tuple(sorted(ids))
