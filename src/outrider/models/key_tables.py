"""What the keys of config.json mean that a family does not read."""

from __future__ import annotations

from typing import Any

from outrider.models.generation import NEUTRAL as SAMPLING
from outrider.models.schemes import KEYS as SCHEMES

CHECKED = frozenset(("architectures", "model_type", *SCHEMES))
"""Keys that are read elsewhere than in families."""

ZERO = (
    "alibi",
    "attention_bias",
    "attention_chunk_size",
    "attn_logit_softcapping",
    "attn_temperature_tuning",
    "clip_qkv",
    "cross_attention_hidden_size",
    "add_cross_attention",
    "final_logit_softcapping",
    "first_k_dense_replace",
    "is_encoder_decoder",
    "logit_soft_cap",
    "llama_4_scaling_beta",
    "lm_head_bias",
    "logits_soft_cap",
    "mlp_bias",
    "moe_intermediate_size",
    "moe_layers",
    "n_routed_experts",
    "n_shared_experts",
    "no_rope_layer_interval",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "per_layer_config",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "rope_interleaved",
    "rope_local_base_freq",
    "sliding_window_pattern",
    "sparse_attention_config",
    "text_config",
    "audio_config",
    "vision_config",
    "use_alibi",
    "use_bidirectional_attention",
    "use_mrope",
    "use_parallel_residual",
    "use_qk_norm",
)
ONE = (
    "embedding_multiplier",
    "embedding_scale",
    "full_attn_mod",
    "interpolate_factor",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "partial_rotary_factor",
    "residual_multiplier",
    "rotary_pct",
    "scale_emb",
)
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(ZERO, (False, 0, [], {})),
    **dict.fromkeys(ONE, (1,)),
    **dict.fromkeys(("attention_multiplier", "dim_model_base", "query_pre_attn_scalar", "scale_depth"), ()),
    "hidden_activation": ("silu",),
    "is_causal": (True,),
    "layer_types": ("full_attention",),
    "no_rope_layers": (1, True),
    "sliding_window": (),
    "swiglu_alpha": (1.702,),
    "swiglu_limit": (7.0,),
    "use_sliding_window": (False,),
    "position_embedding_type": ("rope", "rotary"),
}
"""Keys that are not applied, and the values with which they would change nothing, as do lists of nothing
else; null always is one."""

NOTES = (
    "transformers_version",
    "transformers.js_config",
    "unsloth_version",
    "unsloth_fixed",
    "is_llama_config",
    "name_or_path",
    "tokenizer_class",
    "prefix",
    "model_max_length",
    "max_sequence_length",
    "initial_context_length",
    "vocab_type",
    "bos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
)
TRAINING = (
    "initializer_range",
    "attention_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "dropout",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "finetuning_task",
    "pruned_heads",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
)
PROGRAMS = (
    "use_cache",
    "cache_implementation",
    "pretraining_tp",
    "chunk_size_feed_forward",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_return_dict",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "attn_implementation",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "is_decoder",
    "max_window_layers",
)
GENERATION = (
    "max_length",
    "max_new_tokens",
    "do_sample",
    "early_stopping",
    "num_beam_groups",
    "diversity_penalty",
    "length_penalty",
    "encoder_no_repeat_ngram_size",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "remove_invalid_values",
)
HARMLESS = frozenset((*NOTES, *TRAINING, *PROGRAMS, *GENERATION, *SAMPLING))
"""Keys that change nothing, whatever their value; `outrider.models.generation` looks at those on sampling."""
