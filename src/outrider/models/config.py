"""What a decoder of the Llama family is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.rope import is_number, rotary

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM")
SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**12,
    "max_position_embeddings": 2**31 - 1,
    "sliding_window": 2**31 - 1,
}
"""The most that each may be: many times what models have, and few enough to loop over or to compute with
before any tensor has been looked at."""
DERIVED = ("num_key_value_heads", "head_dim", "sliding_window")  # sizes that may be null
FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings")
DTYPES = ("float32", "float16", "bfloat16", "float64")


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

    Raises ModelError, naming `source`, for an architecture or a setting that this model code would get wrong,
    and for a value that no model has.
    """
    architecture = (config.architectures or [architecture_of(type(config))])[0]
    if architecture not in SUPPORTED:
        raise ModelError(
            f"{source}: architecture {shown(architecture)} is not supported; supported are "
            f"{', '.join(SUPPORTED)}"
        )
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{source}: quantization_config is not supported; use unquantised safetensors or a GGUF file"
        )
    names = (*SIZES, *FLAGS, "rms_norm_eps", "hidden_act")
    check_values({name: getattr(config, name) for name in names if hasattr(config, name)}, source)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.num_attention_heads % config.num_key_value_heads or head_dim % 2:
        raise ModelError(
            f"{source}: {config.num_attention_heads} heads of {head_dim} dimensions cannot share "
            f"{config.num_key_value_heads} K/V heads; heads must divide evenly and head_dim be even"
        )
    inv_freq, factor = rotary(config, head_dim, source)
    vocab = config.vocab_size
    eos = {
        "eos_token_id": config.eos_token_id,
        "eos_token_id of generation_config.json": (generation or {}).get("eos_token_id"),
    }
    return DecoderConfig(
        architecture=architecture,
        vocab_size=vocab,
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
        attention_bias=getattr(config, "attention_bias", False),
        mlp_bias=getattr(config, "mlp_bias", False),
        tie_word_embeddings=config.tie_word_embeddings,
        eos_token_ids=stop_tokens(eos, vocab, source),
        dtype=config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32,
    )


def architecture_of(kind: type[Any]) -> str:
    """The architecture of a configuration class of transformers."""
    return kind.__name__.replace("Config", "ForCausalLM")


def check_values(values: Mapping[str, Any], source: str) -> None:
    """Raise ModelError for a value that is of a wrong type or out of its range; names are config.json's."""

    def check(name: str, right: bool, what: str) -> None:
        if not right:
            raise ModelError(f"{source}: {name} = {shown(values[name])}; it has to be {what}")

    for name, value in values.items():
        if name in SIZES and not (value is None and name in DERIVED):
            most = SIZES[name]
            check(name, is_whole(value) and 1 <= value <= most, f"at least 1 and at most {most}")
        elif name in FLAGS:
            check(name, isinstance(value, bool), "true or false")
        elif name == "rms_norm_eps":
            check(name, is_number(value) and 0 < value <= 1, "greater than 0 and at most 1")
        elif name in ("dtype", "torch_dtype") and not isinstance(value, torch.dtype):
            check(name, value is None or value in DTYPES, f"one of {', '.join(DTYPES)}, or null")
        elif name == "hidden_act" and value != "silu":
            raise ModelError(f"{source}: activation {shown(value)} is not supported; supported is 'silu'")


def stop_tokens(named: Mapping[str, Any], vocab: int, source: str) -> tuple[int, ...]:
    """All ids that end an output. named: what each key holds: an id, a list of ids, or None.

    Raises ModelError, naming the key, for what is not an id below `vocab`.
    """
    ids: set[int] = set()
    for key, value in named.items():
        for token in value if isinstance(value, list | tuple) else [] if value is None else [value]:
            if not is_whole(token) or not 0 <= token < vocab:
                raise ModelError(
                    f"{source}: {key} = {shown(value)}; token ids are whole numbers from 0 to {vocab - 1}"
                )
            ids.add(token)
    return tuple(sorted(ids))


def read_together(name: str) -> Collection[str]:
    """The tensors that one pass of a kernel reads as if they were one, and which need one format."""
    pair = (".gate_proj.", ".up_proj.")
    return {name.replace(part, other) for part in pair if part in name for other in pair} or {name}


def is_whole(value: Any) -> bool:
    """Whether a value from JSON is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)
