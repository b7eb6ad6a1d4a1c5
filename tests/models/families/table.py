"""Tiny models of every family, with all that their architecture has switched on.

`FAMILIES` is what tests of any property run over: row invariance, lossless speculation, planning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import transformers

from tests.models.factories import tiny_config

WINDOW = 20  # shorter than the prompts of the tests
LOCAL, WIDE = "sliding_attention", "full_attention"
LONG = {"rope_type": "longrope", "rope_theta": 10000.0}


@dataclass(frozen=True)
class Tiny:
    """config: makes a new one. gguf: `general.architecture` of its GGUF file; None: llama.cpp has none."""

    config: Callable[[], Any]
    gguf: str | None = None


def config(name: str, **settings: Any) -> Callable[[], Any]:
    """A small configuration of a class of transformers."""
    usual = tiny_config().to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    more = ("num_key_value_heads", "initializer_range", "max_position_embeddings", "eos_token_id")
    sizes = {key: usual[key] for key in (*kept, *more)}
    architecture = name.replace("Text", "").replace("Config", "ForCausalLM")
    given = {
        "architectures": [architecture],
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": 0,
    }

    def make() -> Any:
        return getattr(transformers, name)(**sizes | given | settings)

    return make


def divisors(count: int, first: float) -> list[float]:
    """LongRoPE's, one for each pair of dimensions."""
    return [first + 0.7 * pair for pair in range(count)]


def long_rope(pairs: int, **settings: Any) -> dict[str, Any]:
    lists = {"short_factor": divisors(pairs, 1.0), "long_factor": divisors(pairs, 2.0)}
    return {**LONG, **lists, **settings}


YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 8.0, "original_max_position_embeddings": 32}
GROWTH = {
    **YARN,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.3,
}
BY_TYPE = {
    LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
    WIDE: {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
}
OLMO_3_ROPE = {
    LOCAL: {"rope_type": "default", "rope_theta": 5000.0},
    WIDE: {**YARN, "attention_factor": 1.3, "beta_fast": 32.0, "beta_slow": 1.0},
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.0,
    "attention_bias": True,
    "mlp_bias": True,
}
GEMMA_2 = {
    "head_dim": 16,
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 16,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 5.0,
    "tie_word_embeddings": True,
}

GEMMA_4: dict[str, Any] = {
    "attention_k_eq_v": True,
    "final_logit_softcapping": 6.0,
    "global_head_dim": 32,
    "head_dim": 16,
    "hidden_size_per_layer_input": 0,
    "num_global_key_value_heads": 1,
    "num_hidden_layers": 4,
    "layer_types": [LOCAL, WIDE, LOCAL, WIDE],
    "sliding_window": WINDOW,
    "tie_word_embeddings": True,
    "vocab_size_per_layer_input": tiny_config().vocab_size,
}
GEMMA_4_SMALL: dict[str, Any] = {
    "attention_k_eq_v": False,
    "final_logit_softcapping": None,
    "hidden_size_per_layer_input": 16,
    "layer_types": [LOCAL, WIDE, LOCAL, LOCAL, LOCAL, LOCAL, WIDE],
    "num_hidden_layers": 7,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
}
GEMMA_4_UNIFIED = {
    key: value for key, value in GEMMA_4.items() if "per_layer" not in key and key != "attention_k_eq_v"
}
GRANITE_MOE = {key: value for key, value in GRANITE.items() if key != "mlp_bias"}
QWEN_3_MOE = {
    "head_dim": 20,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 3,
}
QWEN_2_MOE = {key: value for key, value in QWEN_3_MOE.items() if key != "head_dim"} | {
    "norm_topk_prob": False
}
SHARED = {"shared_expert_intermediate_size": 48}
DELTA_ROPE: dict[str, Any] = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
}
DELTA = {
    "initializer_range": 0.05,  # with more, rounding alone grows to 1e-4
    "head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_value_head_dim": 16,
    "num_hidden_layers": 5,
    "rope_parameters": DELTA_ROPE,
}
SOME_DENSE = {
    "norm_topk_prob": False,
    "num_hidden_layers": 3,
    "linear_conv_kernel_dim": 3,
    "linear_num_value_heads": 2,
    "linear_value_head_dim": 24,
}
LFM_2 = {
    "block_ffn_dim_multiplier": 1.3,
    "block_multiple_of": 16,
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "norm_eps": 1e-4,
    "num_hidden_layers": 4,
}
LFM_2_MOE = {key: value for key, value in LFM_2.items() if not key.startswith("block_")} | {
    "moe_intermediate_size": 32,
    "num_experts": 6,
    "num_experts_per_tok": 3,
}
GPT_OSS = {
    "head_dim": 16,
    "num_hidden_layers": 3,
    "num_experts_per_tok": 2,
    "num_local_experts": 5,
    "rope_parameters": {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
    "sliding_window": WINDOW,
}

GLM_4_MOE = {
    "first_k_dense_replace": 1,
    "head_dim": 16,
    "initializer_range": 0.05,
    "moe_intermediate_size": 32,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "routed_scaling_factor": 1.5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}

FAMILIES: dict[str, Tiny] = {
    "llama": Tiny(
        config("LlamaConfig", rope_parameters=LLAMA_3, attention_bias=True, mlp_bias=True), "llama"
    ),
    "mistral": Tiny(config("MistralConfig", sliding_window=WINDOW)),
    "mistral-without-window": Tiny(config("MistralConfig", sliding_window=None, head_dim=20), "llama"),
    "ministral": Tiny(
        config("MinistralConfig", head_dim=12, sliding_window=WINDOW, layer_types=[LOCAL, WIDE])
    ),
    "ministral3": Tiny(
        config("Ministral3Config", head_dim=16, max_position_embeddings=256, rope_parameters=GROWTH),
        "mistral3",
    ),
    "qwen2": Tiny(config("Qwen2Config"), "qwen2"),
    "qwen2-window": Tiny(
        config(
            "Qwen2Config",
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=1,
            tie_word_embeddings=True,
        )
    ),
    "qwen3": Tiny(config("Qwen3Config", head_dim=20, tie_word_embeddings=True), "qwen3"),
    "qwen3-bias": Tiny(config("Qwen3Config", head_dim=20, attention_bias=True), "qwen3"),
    "gemma2": Tiny(config("Gemma2Config", **GEMMA_2), "gemma2"),
    "gemma3": Tiny(
        config(
            "Gemma3TextConfig",
            head_dim=16,
            num_hidden_layers=7,
            sliding_window=WINDOW,
            query_pre_attn_scalar=16,
            rope_parameters=BY_TYPE,
            final_logit_softcapping=6.0,
            tie_word_embeddings=True,
        ),
        "gemma3",
    ),
    "gemma4": Tiny(config("Gemma4TextConfig", **GEMMA_4), "gemma4"),
    "gemma4-small": Tiny(config("Gemma4TextConfig", **GEMMA_4 | GEMMA_4_SMALL), "gemma4"),
    "gemma4-unified": Tiny(config("Gemma4UnifiedTextConfig", **GEMMA_4_UNIFIED)),
    "phi3": Tiny(config("Phi3Config", sliding_window=WINDOW), "phi3"),
    "phi3-long": Tiny(
        config(
            "Phi3Config",
            rope_parameters=long_rope(6, original_max_position_embeddings=64),
            original_max_position_embeddings=64,
        ),
        "phi3",
    ),
    "phi4-mini": Tiny(
        config(
            "Phi3Config",
            hidden_size=64,
            rope_parameters=long_rope(6, partial_rotary_factor=0.75, original_max_position_embeddings=64),
            original_max_position_embeddings=64,
            tie_word_embeddings=True,
        ),
        "phi3",
    ),
    "smollm3": Tiny(
        config(
            "SmolLM3Config", num_hidden_layers=5, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
        ),
        "smollm3",
    ),
    "smollm3-window": Tiny(
        config(
            "SmolLM3Config",
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=WINDOW,
            no_rope_layers=[1, 0, 1],
        )
    ),
    "olmo2": Tiny(config("Olmo2Config"), "olmo2"),
    "olmo3": Tiny(
        config(
            "Olmo3Config",
            max_position_embeddings=256,
            num_hidden_layers=5,
            sliding_window=WINDOW,
            rope_parameters=OLMO_3_ROPE,
        ),
        "olmo2",
    ),
    "granite": Tiny(config("GraniteConfig", **GRANITE), "granite"),
    "granite-tied": Tiny(config("GraniteConfig", **GRANITE | {"tie_word_embeddings": True}), "granite"),
    "mixtral": Tiny(config("MixtralConfig", num_local_experts=4), "llama"),
    "mixtral-window": Tiny(config("MixtralConfig", num_local_experts=3, sliding_window=WINDOW, head_dim=20)),
    "qwen2-moe": Tiny(config("Qwen2MoeConfig", **QWEN_2_MOE | SHARED), "qwen2moe"),
    "qwen2-moe-window": Tiny(
        config(
            "Qwen2MoeConfig",
            **QWEN_2_MOE | SHARED | {"norm_topk_prob": True, "num_hidden_layers": 4},
            decoder_sparse_step=2,
            max_window_layers=3,
            qkv_bias=False,
            sliding_window=WINDOW,
            use_sliding_window=True,
        )
    ),
    "qwen3-moe": Tiny(config("Qwen3MoeConfig", **QWEN_3_MOE), "qwen3moe"),
    "qwen3-moe-some-dense": Tiny(
        config(
            "Qwen3MoeConfig",
            **QWEN_3_MOE | {"norm_topk_prob": False, "num_hidden_layers": 5, "attention_bias": True},
            decoder_sparse_step=2,
            mlp_only_layers=[1],
        )
    ),
    "granite-moe": Tiny(
        config("GraniteMoeConfig", **GRANITE_MOE, num_local_experts=6, num_experts_per_tok=3), "granitemoe"
    ),
    "granite-moe-shared": Tiny(
        config(
            "GraniteMoeSharedConfig",
            **GRANITE_MOE,
            num_local_experts=6,
            num_experts_per_tok=3,
            shared_intermediate_size=80,
        ),
        "granitemoe",
    ),
    "gpt-oss": Tiny(config("GptOssConfig", **GPT_OSS), "gpt-oss"),
    "qwen3-next": Tiny(config("Qwen3NextConfig", **QWEN_3_MOE | SHARED | DELTA), "qwen3next"),
    "qwen3-next-some-dense": Tiny(
        config(
            "Qwen3NextConfig",
            **QWEN_3_MOE | SHARED | DELTA | SOME_DENSE,
            attention_bias=True,
            decoder_sparse_step=2,
            layer_types=["full_attention", "linear_attention", "linear_attention"],
            mlp_only_layers=[1],
        )
    ),
    "qwen3.5": Tiny(config("Qwen3_5TextConfig", **DELTA, tie_word_embeddings=True), "qwen35"),
    "qwen3.5-moe": Tiny(config("Qwen3_5MoeTextConfig", **QWEN_3_MOE | SHARED | DELTA), "qwen35moe"),
    "lfm2": Tiny(config("Lfm2Config", **LFM_2, tie_word_embeddings=True), "lfm2"),
    "lfm2-bias": Tiny(config("Lfm2Config", **LFM_2 | {"conv_L_cache": 4, "conv_bias": True})),
    "lfm2-moe": Tiny(
        config("Lfm2MoeConfig", **LFM_2_MOE, num_dense_layers=2, tie_word_embeddings=True), "lfm2moe"
    ),
    "lfm2-moe-plain": Tiny(
        config(
            "Lfm2MoeConfig",
            **LFM_2_MOE,
            num_dense_layers=0,
            norm_topk_prob=False,
            routed_scaling_factor=1.5,
            use_expert_bias=False,
        )
    ),
    "glm": Tiny(config("GlmConfig", head_dim=16)),
    "glm4": Tiny(config("Glm4Config", head_dim=16), "glm4"),
    "glm4-moe": Tiny(config("Glm4MoeConfig", **GLM_4_MOE, attention_bias=True, use_qk_norm=True), "glm4moe"),
    "glm4-moe-plain": Tiny(config("Glm4MoeConfig", **GLM_4_MOE | {"norm_topk_prob": False}), "glm4moe"),
}
"""By names of the tests' own: a family may have several."""
