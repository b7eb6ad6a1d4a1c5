"""Configurations of public models, written by hand; many sizes are those of one of them."""

from __future__ import annotations

from typing import Any

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
SCALED = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096}
OF_LLAMA: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B-Instruct": LLAMA
    | {"eos_token_id": [128001, 128008, 128009], "head_dim": 64, "pretraining_tp": 1, "rope_scaling": SCALED},
    "Llama-2-7b": LLAMA
    | {"_name_or_path": "meta-llama/Llama-2-7b-hf", "rope_scaling": None, "pad_token_id": 0},
    "TinyLlama-1.1B-Chat": LLAMA | {"pretraining_tp": 1, "rope_scaling": None, "rope_theta": 10000.0},
    "SmolLM2-135M-Instruct": LLAMA
    | {
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}},
    },
    "Mistral-7B-v0.1": MISTRAL,
    "Mistral-7B-Instruct-v0.3": MISTRAL | {"sliding_window": None, "head_dim": 64},
    "Yarn-Mistral-7b-128k": MISTRAL
    | {
        "rope_scaling": {
            "factor": 16.0,
            "finetuned": True,
            "original_max_position_embeddings": 8192,
            "type": "yarn",
        }
    },
    "unsloth": LLAMA
    | {"unsloth_version": "2025.3.19", "unsloth_fixed": True, "_attn_implementation_autoset": True},
    "saved by transformers 5": {
        key: value for key, value in LLAMA.items() if key not in ("rope_theta", "torch_dtype")
    }
    | {"dtype": "bfloat16", "rope_parameters": {**SCALED, "rope_theta": 500000.0}},
}
BARE = {key: value for key, value in LLAMA.items() if key not in ("attention_bias", "mlp_bias", "rope_theta")}
GEMMA = BARE | {
    "attention_bias": False,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "sliding_window": 4096,
}
PHI = BARE | {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "embd_pdrop": 0.0,
    "model_type": "phi3",
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rope_theta": 10000.0,
    "sliding_window": None,
}
LONG = {"long_factor": [1.5] * 48, "short_factor": [1.0] * 48, "type": "longrope"}
QWEN = BARE | {"max_window_layers": 28, "rope_theta": 1e6, "use_sliding_window": False}
OF_DELTA_NETS = {
    "full_attention_interval": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "partial_rotary_factor": 0.25,
}
GROWING = {
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "factor": 16.0,
    "llama_4_scaling_beta": 0.1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 16384,
    "rope_theta": 1000000.0,
    "rope_type": "yarn",
    "type": "yarn",
}
WINDOWED: dict[str, dict[str, Any]] = {
    "Mistral-7B-v0.1": OF_LLAMA["Mistral-7B-v0.1"],
    "Yarn-Mistral-7b-128k": OF_LLAMA["Yarn-Mistral-7b-128k"],
    "gpt-oss-20b": BARE
    | {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "experts_per_token": 4,
        "head_dim": 64,
        "initial_context_length": 4096,
        "layer_types": ["sliding_attention", "full_attention"] * 8,
        "model_type": "gpt_oss",
        "num_experts_per_tok": 4,
        "num_local_experts": 32,
        "output_router_logits": False,
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
    },
    "gemma-2-2b-it": GEMMA
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "model_type": "gemma2",
        "rope_theta": 10000.0,
    },
    "gemma-2-9b-it": GEMMA
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "model_type": "gemma2",
        "rope_theta": 10000.0,
        "sliding_window_size": 4096,
    },
    "gemma-3-1b-it": {key: value for key, value in GEMMA.items() if key != "hidden_act"}
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "model_type": "gemma3_text",
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "gemma-3-4b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
    },
    "Phi-3-mini-4k-instruct": PHI | {"rope_scaling": None, "sliding_window": 2047},
    "Olmo-3-7B-Instruct": BARE
    | {
        "architectures": ["Olmo3ForCausalLM"],
        "attention_bias": False,
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 4,
        "model_type": "olmo3",
        "rope_scaling": {
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "yarn",
        },
        "rope_theta": 500000,
        "sliding_window": 4096,
    },
}
"""Those whose first layer has a window."""
PUBLIC: dict[str, dict[str, Any]] = {
    **OF_LLAMA,
    **WINDOWED,
    "Qwen2.5-1.5B-Instruct": QWEN
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "sliding_window": 32768,
        "use_mrope": False,
    },
    "Qwen3-0.6B": QWEN
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 128,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
    },
    "Phi-3-mini-128k-instruct": PHI
    | {
        "_name_or_path": "Phi-3-mini-128k-instruct",
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "hidden_size": 3072,
        "rope_scaling": LONG,
    },
    "Phi-4-mini-instruct": PHI
    | {
        "full_attn_mod": 1,
        "hidden_size": 4096,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "partial_rotary_factor": 0.75,
        "rope_scaling": LONG,
    },
    "SmolLM3-3B": LLAMA
    | {
        "architectures": ["SmolLM3ForCausalLM"],
        "layer_types": ["full_attention"] * 16,
        "max_window_layers": 28,
        "model_type": "smollm3",
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 4,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "OLMo-2-0425-1B": BARE
    | {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        "model_type": "olmo2",
        "rope_scaling": None,
        "rope_theta": 500000,
    },
    "granite-3.3-2b-instruct": LLAMA
    | {
        "architectures": ["GraniteForCausalLM"],
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "model_type": "granite",
        "residual_multiplier": 0.22,
        "rope_scaling": None,
    },
    "GLM-4-9B-0414": BARE
    | {
        "architectures": ["Glm4ForCausalLM"],
        "attention_bias": True,
        "head_dim": 128,
        "model_type": "glm4",
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
    },
    "GLM-4.5-Air": BARE
    | {
        "architectures": ["Glm4MoeForCausalLM"],
        "attention_bias": True,
        "first_k_dense_replace": 1,
        "head_dim": 128,
        "model_type": "glm4_moe",
        "moe_intermediate_size": 1408,
        "n_group": 1,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_experts_per_tok": 8,
        "num_nextn_predict_layers": 1,
        "partial_rotary_factor": 0.5,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "routed_scaling_factor": 1.0,
        "topk_group": 1,
        "use_qk_norm": False,
    },
    "Mixtral-8x7B-Instruct-v0.1": BARE
    | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
    },
    "Qwen3-30B-A3B": BARE
    | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "output_router_logits": False,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "Qwen3-Coder-30B-A3B-Instruct": BARE
    | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "max_window_layers": 28,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "output_router_logits": False,
        "qkv_bias": False,
        "rope_scaling": None,
        "rope_theta": 10000000,
        "router_aux_loss_coef": 0.0,
        "shared_expert_intermediate_size": 0,
        "sliding_window": None,
        "use_qk_norm": True,
        "use_sliding_window": False,
    },
    "Qwen1.5-MoE-A2.7B": QWEN
    | {
        "architectures": ["Qwen2MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "model_type": "qwen2_moe",
        "moe_intermediate_size": 1408,
        "norm_topk_prob": False,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 5632,
        "sliding_window": 32768,
    },
    "Qwen3-Next-80B-A3B-Instruct": BARE
    | OF_DELTA_NETS
    | {
        "architectures": ["Qwen3NextForCausalLM"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "model_type": "qwen3_next",
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "output_router_logits": False,
        "rope_scaling": None,
        "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 512,
    },
    "Qwen3.6-27B": {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "image_token_id": 248056,
        "language_model_only": False,
        "model_type": "qwen3_5",
        "text_config": BARE
        | OF_DELTA_NETS
        | {
            "architectures": None,
            "attention_bias": False,
            "attn_output_gate": True,
            "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 4,
            "mamba_ssm_dtype": "float32",
            "model_type": "qwen3_5_text",
            "mtp_num_hidden_layers": 1,
            "mtp_use_dedicated_embeddings": False,
            "output_gate_type": "swish",
            "pad_token_id": None,
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
        },
        "tie_word_embeddings": False,
        "vision_config": {"depth": 27, "model_type": "qwen3_5"},
    },
    "LFM2-1.2B": {
        key: value for key, value in BARE.items() if key not in ("intermediate_size", "rms_norm_eps")
    }
    | {
        "architectures": ["Lfm2ForCausalLM"],
        "block_auto_adjust_ff_dim": True,
        "block_dim": 2048,
        "block_ff_dim": 12288,
        "block_ffn_dim_multiplier": 1.0,
        "block_mlp_init_scale": 1.0,
        "block_multiple_of": 256,
        "block_norm_eps": 1e-05,
        "block_out_init_scale": 1.0,
        "block_use_swiglu": True,
        "block_use_xavier_init": True,
        "conv_L_cache": 3,
        "conv_bias": False,
        "conv_dim": 2048,
        "conv_dim_out": 2048,
        "conv_use_xavier_init": True,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "model_type": "lfm2",
        "norm_eps": 1e-05,
        "num_heads": 32,
        "rope_theta": 1000000.0,
        "theta": 1000000.0,
        "tie_embedding": True,
        "use_pos_enc": True,
    },
    "granite-3.1-3b-a800m-instruct": BARE
    | {
        "architectures": ["GraniteMoeForCausalLM"],
        "attention_bias": False,
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "logits_scaling": 6.0,
        "model_type": "granitemoe",
        "num_experts_per_tok": 8,
        "num_local_experts": 40,
        "output_router_logits": False,
        "residual_multiplier": 0.22,
        "rope_scaling": None,
        "rope_theta": 10000000.0,
        "router_aux_loss_coef": 0.0,
    },
    "Ministral-3-3B-Instruct-2512": {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "dtype": "bfloat16",
        "eos_token_id": 2,
        "image_token_index": 10,
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": BARE
        | {
            "architectures": None,
            "head_dim": 128,
            "model_type": "ministral3",
            "rope_parameters": GROWING,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        "vision_config": {"hidden_size": 1024, "model_type": "pixtral"},
        "vision_feature_layer": -1,
    },
}
