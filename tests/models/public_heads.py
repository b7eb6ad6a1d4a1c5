"""The configurations of public heads: which fields they have, written by hand from what the tools that made
them write (EAGLE's repository, SpecForge, Speculators, ModelOpt, AngelSlim). Facts, not files.

READ are EAGLE-3 heads that are read, REFUSED others, with what is said of them.
"""

from __future__ import annotations

from typing import Any

TRAINING = {"initializer_range": 0.02, "use_cache": True, "transformers_version": "4.51.0"}
QWEN = TRAINING | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
    "draft_vocab_size": 32000,
}
LLAMA = TRAINING | {
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 128256,
}
LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
GPT_OSS = {
    "hidden_size": 2880,
    "intermediate_size": 17280,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
}


def _speculators(layer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Eagle3Speculator"],
        "auto_map": {"": "eagle3.Eagle3SpeculatorConfig"},
        "draft_vocab_size": 32000,
        "eagle_aux_hidden_state_layer_ids": None,
        "embed_requires_grad": False,
        "has_no_defaults_at_init": False,
        "norm_before_residual": True,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [
                {"accept_tolerance": 0.0, "proposal_type": "greedy", "speculative_tokens": 3}
            ],
            "verifier": {"architectures": ["LlamaForCausalLM"], "name_or_path": "org/name"},
        },
        "speculators_model_type": "eagle3",
        "speculators_version": "0.1.0.dev14",
        "target_hidden_size": None,
        "torch_dtype": "bfloat16",
        "transformer_layer_config": layer,
        "transformers_version": "4.53.3",
    } | changes


def _modelopt(eagle_config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    norms = {"use_input_layernorm_in_first_layer": True, "use_last_layernorm": True}
    return (
        LLAMA
        | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "pretraining_tp": 1,
            "head_dim": 128,
            "rope_theta": 500000.0,
            "rope_scaling": LLAMA3_ROPE,
            "draft_vocab_size": 32000,
            "eagle_config": norms | {"use_mtp_layernorm": False} | eagle_config,
        }
        | changes
    )


NESTED_LLAMA = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 1,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": LLAMA3_ROPE,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}

NESTED_QWEN3 = NESTED_LLAMA | {
    "layer_types": ["full_attention", "sliding_attention"],
    "mlp_bias": None,
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "pretraining_tp": None,
    "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 1000000, "rope_type": "default"},
    "rope_scaling": None,
    "rope_theta": None,
    "sliding_window": 512,
    "use_sliding_window": True,
}
SIZES = {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16}

READ: dict[str, dict[str, Any]] = {
    "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B": LLAMA
    | {"architectures": ["LlamaForCausalLM"], "draft_vocab_size": 32000},
    "yuhuili/EAGLE3-LLaMA3.3-Instruct-70B": LLAMA
    | {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "num_attention_heads": 48,
        "target_hidden_size": 8192,
        "draft_vocab_size": 32000,
    },
    "yuhuili/EAGLE3-Vicuna1.3-13B": LLAMA
    | {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32000,
        "draft_vocab_size": 32000,
    },
    "lmsys/sglang-EAGLE3-LLaMA3.1-Instruct-8B (SpecForge)": LLAMA
    | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000},
    "lmsys/Qwen3-235B-A22B-EAGLE3 (SpecForge)": {key: QWEN[key] for key in QWEN if "sliding" not in key}
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 4096,
        "intermediate_size": 24576,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 46, 90], "use_aux_hidden_state": True},
    },
    "Tengyunw/qwen3_8b_eagle3": QWEN
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "max_window_layers": 36,
        "num_attention_heads": 32,
    },
    "AngelSlim/Qwen3-1.7B_eagle3": QWEN
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_window_layers": 28,
        "num_attention_heads": 16,
    },
    "AngelSlim/Qwen3-4B_eagle3": QWEN
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "max_window_layers": 36,
        "num_attention_heads": 32,
    },
    "RedHatAI/Llama-3.1-8B-Instruct-speculator.eagle3": _speculators(NESTED_LLAMA),
    "RedHatAI/Qwen3-8B-speculator.eagle3": _speculators(
        NESTED_LLAMA
        | {"intermediate_size": 12288, "vocab_size": 151936, "rope_scaling": None, "rope_theta": 1000000}
    ),
    "RedHatAI/gpt-oss-20b-speculator.eagle3": _speculators(
        NESTED_LLAMA | GPT_OSS | {"layer_types": ["full_attention"], "rope_theta": 10000.0},
        architectures=["Eagle3DraftModel"],
        draft_vocab_size=64000,
        norm_before_fc=True,
        fc_norm=False,
        norm_output=False,
    ),
    "nvidia/gpt-oss-120b-Eagle3 (ModelOpt)": _modelopt(
        {
            "eagle_aux_hidden_state_layer_ids": [],
            "use_aux_hidden_state": False,
            "next_layer_regular": True,
            "parallel_draft_step": 1,
            "parallel_draft_heads_num_layers": 1,
        },
        **GPT_OSS,
    ),
    "nvidia/Llama-4-Maverick-17B-128E-Eagle3 (ModelOpt)": _modelopt(
        {"eagle_aux_hidden_state_layer_ids": [1, 23, 44], "use_aux_hidden_state": True},
        hidden_size=5120,
        intermediate_size=32768,
        num_attention_heads=40,
        vocab_size=202048,
    ),
    "lmsys/EAGLE3-gpt-oss-120b (SpecForge)": LLAMA
    | GPT_OSS
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": 32000,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 17, 33]},
    },
    "EAGLE-3.1 of Qwen3-30B-A3B (SpecForge)": QWEN
    | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 2048,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "fc_norm": True,
        "norm_output": True,
    },
}

READ |= {
    "a head of Qwen3's layers, of which one has a window (Speculators)": _speculators(
        {key: value for key, value in NESTED_QWEN3.items() if value is not None}
    ),
    "Qwen3.5-35B-A3B (SpecForge)": QWEN
    | SIZES
    | {"architectures": ["LlamaForCausalLMEagle3"], "decoder_sparse_step": 1, "head_dim": 256},
    "QwQ-32B (SpecForge)": QWEN
    | SIZES
    | {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "qwen2"},
    "Qwen3-30B-A3B (AngelSlim)": QWEN
    | SIZES
    | {
        "architectures": ["Eagle3LlamaForCausalLM"],
        "decoder_sparse_step": 1,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "target_model_type": "qwen3_moe",
    },
    "Qwen2.5-VL-3B (AngelSlim)": QWEN
    | SIZES
    | {
        "architectures": ["Eagle3LlamaForCausalLM"],
        "image_token_id": 151655,
        "modal_type": "VLM",
        "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"},
        "sliding_window": 32768,
        "use_mrope": False,
        "video_token_id": 151656,
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
        "vision_token_id": 151654,
    },
    "Qwen3-VL-4B (AngelSlim)": QWEN
    | SIZES
    | {
        "architectures": ["Eagle3LlamaForCausalLM"],
        "modal_type": "VLM",
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    },
    "Hunyuan-4B (AngelSlim)": QWEN
    | SIZES
    | {
        "add_classification_head": False,
        "architectures": ["Eagle3LlamaForCausalLM"],
        "attention_head_dim": 128,
        "cla_share_factor": 2,
        "class_num": 0,
        "dense_list": [3072, 0],
        "eod_token_id": 120026,
        "im_end_id": 5,
        "im_newline_id": 11,
        "im_start_id": 4,
        "mask_init_id": 12,
        "mlp_bias": False,
        "norm_type": "rms",
        "org_vocab_size": 120818,
        "pad_id": 120002,
        "pool_type": "last",
        "sep_token_id": 120007,
        "target_model_type": "hunyuan_v1_dense",
        "text_end_id": 7,
        "text_start_id": 6,
        "use_cla": False,
        "use_qk_norm": True,
        "use_rotary_pos_emb": True,
    },
}

_EAGLE1 = {**LLAMA, "architectures": ["LlamaForCausalLM"]}
_DFLASH = {"mask_token_id": 151669, "target_layer_ids": [1, 9, 17, 25, 33]}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "EAGLE-1 as vLLM has it": (
        {"model_type": "eagle", "model": _EAGLE1, "eagle_fc_bias": True},
        "is an EAGLE-1 or EAGLE-2 head, which is not supported",
    ),
    "EAGLE-1 (ModelOpt)": (
        _modelopt({"use_aux_hidden_state": False}, architectures=["LlamaForCausalLMEagle"]),
        "is an EAGLE-1 or EAGLE-2 head, which is not supported",
    ),
    "P-EAGLE (SpecForge)": (
        QWEN | {"architectures": ["PEagleDraftModel"], "num_hidden_layers": 4},
        "is a P-EAGLE head",
    ),
    "P-EAGLE (Speculators)": (
        _speculators(
            NESTED_LLAMA,
            architectures=["PEagleSpeculator"],
            speculators_model_type="peagle",
            mask_token_id=9,
        ),
        "is a P-EAGLE head",
    ),
    "parallel drafting (ModelOpt)": (
        _modelopt({"use_aux_hidden_state": True, "parallel_draft_step": 2}),
        r"eagle_config\.parallel_draft_step = 2; .*unless it is 1",
    ),
    "DFlash": (
        QWEN | {"architectures": ["DFlashDraftModel"], "block_size": 16, "dflash_config": _DFLASH},
        "is a DFlash drafter",
    ),
    "FasterDecoding/medusa-vicuna-7b-v1.3": (
        {"medusa_num_heads": 5, "medusa_num_layers": 1, "base_model_name_or_path": "lmsys/vicuna-7b-v1.3"},
        "is Medusa heads",
    ),
    "ankner/hydra-vicuna-7b-v1.3": ({"hydra_num_heads": 4, "hydra_num_layers": 1}, "is Hydra heads"),
    "ibm-ai-platform/llama3-8b-accelerator": (
        {"architectures": ["MLPSpeculatorPreTrainedModel"], "model_type": "mlp_speculator", "n_predict": 4},
        "is an MLP speculator",
    ),
    "MTP (Speculators)": (
        _speculators(NESTED_LLAMA, architectures=["MTPDraftModel"], speculators_model_type="mtp"),
        r"is a layer for multi-token prediction \(MTP\)",
    ),
    "EAGLE-3 over latent attention": (
        {"architectures": ["Eagle3DeepseekV2ForCausalLM"], "model_type": "kimi_k2"},
        "is an EAGLE-3 head whose layer is neither Llama's nor Qwen3's",
    ),
    "a layer of another family (Speculators)": (
        _speculators(NESTED_LLAMA | {"model_type": "gemma3_text"}),
        "model_type = 'gemma3_text'",
    ),
    "a layer of no known type": (
        LLAMA
        | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "num_hidden_layers": 2,
            "layer_types": ["full_attention", "chunked_attention"],
            "sliding_window": 64,
        },
        "layer_types = ",
    ),
    "hunyuan-1.8b (AngelSlim)": (
        QWEN
        | SIZES
        | {
            "architectures": ["Eagle3LlamaForCausalLM"],
            "rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"},
        },
        "rope scaling 'dynamic' is not supported",
    ),
    "CosyVoice3 (AngelSlim)": (
        QWEN | SIZES | {"architectures": ["CosyVoice3Eagle3LlamaForCausalLM"]},
        "is an EAGLE-3 head whose layer is neither",
    ),
    "quantised weights": (
        LLAMA | {"architectures": ["LlamaForCausalLMEagle3"], "quantization_config": {"quant_method": "fp8"}},
        "quantization_config = .* not supported",
    ),
}
