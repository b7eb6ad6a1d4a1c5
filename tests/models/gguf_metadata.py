"""A model's settings as llama.cpp's converter writes them, key by key, for each architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

LLAMA_LIKE = ("llama", "smollm3", "granite", "granitemoe", "mistral3")
"""Architectures that are converted as Llama is: with the rows of q and k in pairs."""
Keys = dict[str, Any]


def model_metadata(config: Any, architecture: str) -> Keys:
    """config: of transformers."""
    keys = KEYS.get(architecture, _common)(config)
    if architecture in LLAMA_LIKE:
        keys |= {"vocab_size": config.vocab_size, "rope.dimension_count": _head_dim(config)}
    keys |= EXTRA.get(architecture, lambda config: {})(config) | _experts(config)
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def _experts(config: Any) -> Keys:
    count = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return {"expert_count": count, "expert_used_count": config.num_experts_per_tok} if count else {}


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _sizes(config: Any) -> Keys:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
    }


def _lengths(config: Any) -> Keys:
    head_dim = getattr(config, "head_dim", None)
    return {"attention.key_length": head_dim, "attention.value_length": head_dim} if head_dim else {}


def _rope(config: Any) -> Keys:
    of_types = config.rope_parameters
    rope = of_types.get("full_attention", of_types)
    keys = {"rope.freq_base": float(rope["rope_theta"])}
    if "sliding_attention" in of_types:
        keys["rope.freq_base_swa"] = float(of_types["sliding_attention"]["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        keys |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        for name, key in (
            ("attention_factor", "attn_factor"),
            ("beta_fast", "beta_fast"),
            ("beta_slow", "beta_slow"),
        ):
            if rope.get(name) is not None:
                keys[f"rope.scaling.yarn_{key}"] = rope[name]
    return keys


def _common(config: Any) -> Keys:
    return _sizes(config) | _lengths(config) | _rope(config)


def _without_head_dim(config: Any) -> Keys:
    return _sizes(config) | _rope(config)


def _gemma2(config: Any) -> Keys:
    return _sizes(config) | _lengths(config)


def _phi3(config: Any) -> Keys:
    rope = config.rope_parameters
    share = rope.get("partial_rotary_factor", 1.0)
    keys = _sizes(config) | {
        "rope.scaling.original_context_length": config.original_max_position_embeddings,
        "rope.dimension_count": int(share * config.hidden_size) // config.num_attention_heads,
        "rope.freq_base": float(rope["rope_theta"]),
        "attention.sliding_window": config.sliding_window or 0,
    }
    if rope["rope_type"] == "longrope":
        keys["rope.scaling.attn_factor"] = rope_attention(config)
    return keys


def rope_attention(config: Any) -> float:
    """The factor on cos and sin of LongRoPE."""
    scale = config.max_position_embeddings / config.original_max_position_embeddings
    return math.sqrt(1 + math.log(scale) / math.log(config.original_max_position_embeddings))


def _of_gemma2(config: Any) -> Keys:
    return {
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
        "attention.sliding_window": config.sliding_window,
    }


def _of_gemma3(config: Any) -> Keys:
    cap = config.final_logit_softcapping
    return {"attention.sliding_window": config.sliding_window} | (
        {"final_logit_softcapping": cap} if cap else {}
    )


def _of_gemma4(config: Any) -> Keys:
    layers, shared = config.num_hidden_layers, config.num_kv_shared_layers
    each = [config.per_layer_config[layer] for layer in range(layers)]
    slides = [kind == "sliding_attention" for kind in config.layer_types]
    wide, local = (each[slides.index(kind)].head_dim for kind in (False, True))
    keys = {
        "attention.shared_kv_layers": shared,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
        "attention.sliding_window_pattern": slides,
        "attention.head_count_kv": [one.num_key_value_heads for one in each],
        "rope.dimension_count": wide,
        "rope.dimension_count_swa": local,
    }
    for end, dims in (("", wide), ("_swa", local)):
        keys |= {f"attention.{one}_length{end}": dims for one in ("key", "value")}
    if config.use_double_wide_mlp:
        inner = config.intermediate_size
        keys["feed_forward_length"] = [inner] * (layers - shared) + [2 * inner] * shared
    return _of_gemma3(config) | keys


def _of_olmo2(config: Any) -> Keys:
    if not hasattr(config, "sliding_window"):
        return {}
    return {
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types],
    }


def _of_granite(config: Any) -> Keys:
    return {
        "attention.scale": config.attention_multiplier,
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "logit_scale": config.logits_scaling,
    }


def _of_gpt_oss(config: Any) -> Keys:
    return {
        "attention.sliding_window": config.sliding_window,
        "expert_feed_forward_length": config.intermediate_size,
    }


def _of_glm4(config: Any) -> Keys:
    share = config.rope_parameters.get("partial_rotary_factor", 0.5)
    return {"rope.dimension_count": int(_head_dim(config) * share)}


def _of_glm4_moe(config: Any) -> Keys:
    return _of_glm4(config) | {
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_gating_func": 2,
        "expert_shared_count": config.n_shared_experts,
        "expert_weights_norm": config.norm_topk_prob,
        "expert_weights_scale": config.routed_scaling_factor,
        "leading_dense_block_count": config.first_k_dense_replace,
    }


def _of_mistral3(config: Any) -> Keys:
    rope = config.rope_parameters
    return {
        "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"],
        "attention.temperature_scale": rope["llama_4_scaling_beta"],
    }


def _of_mixtures(config: Any) -> Keys:
    shared = getattr(config, "shared_expert_intermediate_size", None)
    return {
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": shared,
    }


def _of_granite_moe(config: Any) -> Keys:
    shared = getattr(config, "shared_intermediate_size", None)
    return _of_granite(config) | {"expert_shared_feed_forward_length": shared}


def _of_qwen3_next(config: Any) -> Keys:
    heads, dim = config.linear_num_value_heads, config.linear_value_head_dim
    return {
        "full_attention_interval": 4,
        "rope.dimension_count": int(_head_dim(config) * config.rope_parameters["partial_rotary_factor"]),
        "ssm.conv_kernel": config.linear_conv_kernel_dim,
        "ssm.group_count": config.linear_num_key_heads,
        "ssm.inner_size": heads * dim,
        "ssm.state_size": config.linear_key_head_dim,
        "ssm.time_step_rank": heads,
    }


def _of_qwen3_5(config: Any) -> Keys:
    return _of_qwen3_next(config) | {"rope.dimension_sections": [11, 11, 10, 0]}


def _of_lfm2(config: Any) -> Keys:
    inner = config.intermediate_size
    if getattr(config, "block_auto_adjust_ff_dim", False):
        inner = int(config.block_ffn_dim_multiplier * int(2 * inner / 3))
        inner = -(-inner // config.block_multiple_of) * config.block_multiple_of
    return {
        "attention.head_count_kv": [
            0 if kind == "conv" else config.num_key_value_heads for kind in config.layer_types
        ],
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "feed_forward_length": inner,
        "shortconv.l_cache": config.conv_L_cache,
        "vocab_size": config.vocab_size,
    }


def _of_lfm2_moe(config: Any) -> Keys:
    return _of_lfm2(config) | {
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_gating_func": 2,
        "leading_dense_block_count": config.num_dense_layers,
    }


KEYS: dict[str, Callable[[Any], Keys]] = {
    "gemma2": _gemma2,
    "granite": _without_head_dim,
    "granitemoe": _without_head_dim,
    "phi3": _phi3,
}
EXTRA: dict[str, Callable[[Any], Keys]] = {
    "gemma2": _of_gemma2,
    "gemma3": _of_gemma3,
    "gemma4": _of_gemma4,
    "glm4": _of_glm4,
    "glm4moe": _of_glm4_moe,
    "gpt-oss": _of_gpt_oss,
    "granite": _of_granite,
    "granitemoe": _of_granite_moe,
    "lfm2": _of_lfm2,
    "lfm2moe": _of_lfm2_moe,
    "mistral3": _of_mistral3,
    "olmo2": _of_olmo2,
    "qwen2moe": _of_mixtures,
    "qwen35": _of_qwen3_5,
    "qwen35moe": lambda config: _of_mixtures(config) | _of_qwen3_5(config),
    "qwen3moe": _of_mixtures,
    "qwen3next": lambda config: _of_mixtures(config) | _of_qwen3_next(config),
}
