"""What the keys of config.json mean that a family does not read."""

from __future__ import annotations

from typing import Any

from outrider.models.generation import NEUTRAL as SAMPLING
from outrider.models.schemes import KEYS as SCHEMES

CHECKED = frozenset(("architectures", "model_type", *SCHEMES))
"""Keys that are read elsewhere than in families."""

ZERO = (
    "alibi",
    "bias",
    "attention_bias",
    "attention_chunk_size",
    "attention_out_bias",
    "attention_qkv_bias",
    "attn_logit_softcapping",
    "attn_temperature_tuning",
    "clip_qkv",
    "dual_chunk_attention_config",
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
    "num_nextn_predict_layers",
    "per_layer_config",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "qkv_bias",
    "rope_interleaved",
    "rope_local_base_freq",
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "sliding_window_pattern",
    "sparse_attention_config",
    "text_config",
    "audio_config",
    "vision_config",
    "use_alibi",
    "use_bias",
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
    "rope_scaling_factor",
    "rotary_pct",
    "scale_emb",
)
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(ZERO, (False, 0, [], {})),
    **dict.fromkeys(ONE, (1,)),
    **dict.fromkeys(("attention_multiplier", "dim_model_base", "query_pre_attn_scalar", "scale_depth"), ()),
    "attn_output_gate": (True,),
    "block_use_swiglu": (True,),
    "hidden_activation": ("silu",),
    "is_causal": (True,),
    "layer_types": ("full_attention",),
    "no_rope_layers": (1, True),
    "sliding_window": (),
    "swiglu_alpha": (1.702,),
    "swiglu_limit": (7.0,),
    "use_pos_enc": (True,),
    "use_sliding_window": (False,),
    "output_gate_type": ("swish", "silu"),
    "position_embedding_type": ("rope", "rotary"),
}
"""Keys that are not applied, and the values with which they would change nothing, as do lists of nothing
else; null always is one."""

NOTES = """
    transformers_version transformers.js_config peft_version paddlenlp_version auto_map custom_pipelines
    name_or_path model_name base_model author license description is_llama_config
    tokenizer_class prefix vocab_type bos_token eos_token pad_token unk_token
    bos_token_id pad_token_id unk_token_id sep_token_id mask_token_id decoder_start_token_id
    language_model_only
    model_max_length max_sequence_length max_seq_len max_seq_length seq_length max_seq_len_cached
    initial_context_length
    _name_or_path _commit_hash _auto_class _from_model_config _num_labels _pre_quantization_dtype
"""
"""Who made a model and with what, what its tokenizer says better, and how long its texts were. `auto_map`
names code that a family of ours takes the place of, as a model class of transformers would."""
TRAINING = """
    initializer_range init_std init_method gradient_checkpointing use_recompute neftune_noise_alpha
    label_smoothing output_router_logits router_jitter_noise
    id2label label2id num_labels problem_type task_specific_params finetuning_task pruned_heads
    block_mlp_init_scale block_out_init_scale block_use_xavier_init conv_use_xavier_init
"""
AGAIN = "block_dim block_norm_eps conv_dim conv_dim_out num_heads theta"
"""What LFM2's files say twice; transformers reads the other one."""
DRAFTS = "mtp mtp_num_hidden_layers mtp_use_dedicated_embeddings"
"""Keys of layers that predict further tokens, which are left out."""
PROGRAMS = """
    use_cache cache_implementation pretraining_tp chunk_size_feed_forward
    output_attentions output_hidden_states return_dict use_return_dict logits_to_keep num_logits_to_keep
    torchscript use_bfloat16 tf_legacy_loss tie_encoder_decoder tie_last_hidden_states is_decoder
    max_window_layers mamba_ssm_dtype
    attn_implementation experts_implementation use_flash_attn use_flash_attention use_flash_attention_2
    use_sdpa use_fused_rope use_fused_rms_norm fuse_attention_qkv fuse_attention_ffn
    tensor_parallel_degree virtual_pp_degree sequence_parallel ep_size tp_size
    base_model_tp_plan base_model_pp_plan base_model_ep_plan base_config_key sub_configs attribute_map
    keys_to_ignore_at_inference has_no_defaults_at_init is_composition
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled
    _experts_implementation _experts_implementation_internal
"""
"""How a program that reads the model computes or divides it among machines, and what it gives back."""
GENERATION = """
    max_length max_new_tokens do_sample early_stopping num_beam_groups diversity_penalty length_penalty
    encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate
    remove_invalid_values
"""
SENSES = """
    image_token_index image_token_id boi_token_index boi_token_id eoi_token_index eoi_token_id
    boa_token_index boa_token_id eoa_token_index eoa_token_id vision_soft_tokens_per_image
    image_seq_length video_token_index video_token_id audio_token_index audio_token_id
    vision_start_token_id vision_end_token_id vision_token_id mm_tokens_per_image
    vision_feature_layer vision_feature_select_strategy
    multimodal_projector_bias spatial_merge_size downsample_factor
    projector_hidden_act projector_hidden_size projector_bias projector_use_layernorm
"""
"""How images and sounds enter a model, which has only text here."""
HARMLESS = frozenset(
    (*f"{NOTES} {TRAINING} {AGAIN} {DRAFTS} {PROGRAMS} {GENERATION} {SENSES}".split(), *SAMPLING)
)
"""Keys that change nothing, whatever their value; `outrider.models.generation` looks at those on sampling."""
TOOLS = ("unsloth_", "axolotl_")
LOSSES = ("dropout", "dropout_prob", "_pdrop", "_loss_coef", "_loss_weight")


def is_harmless(key: str) -> bool:
    """Whether no value of a key changes what a family computes that does not read it: the key is one of
    `HARMLESS`, a note of a tool for training, or of use in training alone."""
    return key in HARMLESS or key in CHECKED or key.startswith(TOOLS) or key.endswith(LOSSES)


def is_off(value: Any) -> bool:
    """Whether a value switches a setting off, whatever it is. Numbers do not: 0 may be the first of a list or
    of some kinds, and 1 a count."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)
