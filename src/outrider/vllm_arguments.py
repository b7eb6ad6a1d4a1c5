"""vLLM's arguments of `LLM` and of its `speculative_config` that Outrider has no option for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from outrider.foreign import Ignored, Only, Renamed, Rule, Switch

ONE_DEVICE = Only((1,), "a model runs on one device; give 1, or engine='vllm', which spreads it over several")
NO_LORA = Only((False,), "merge the adapter into the model's weights, and load those")
TEXT_ALONE = Only(({}, "", []), "models read text alone")
_IGNORED = (
    "aggregate_engine_logging", "allow_deprecated_quantization", "allowed_local_media_path",
    "allowed_media_domains", "api_process_count", "api_process_rank", "async_scheduling",
    "attention_config", "calculate_kv_scales", "code_revision", "collect_detailed_traces",
    "compilation_config", "cpu_offload_gb", "cpu_offload_params", "cuda_graph_sizes",
    "cudagraph_capture_sizes", "disable_async_output_proc", "disable_cascade_attn",
    "disable_chunked_mm_input", "disable_custom_all_reduce", "disable_hybrid_kv_cache_manager",
    "disable_log_requests", "disable_log_stats", "disable_mm_preprocessor_cache",
    "distributed_executor_backend", "download_dir", "enable_chunked_prefill", "enable_expert_parallel",
    "enable_log_requests", "enable_prompt_tokens_details", "enable_sleep_mode",
    "fail_on_environ_validation", "guided_decoding_backend", "guided_decoding_disable_fallback",
    "ignore_patterns", "kernel_config", "kv_sharing_fast_prefill",
    "limit_mm_per_prompt", "long_prefill_token_threshold", "max_cpu_loras", "max_cudagraph_capture_size",
    "max_logprobs", "max_long_partial_prefills", "max_lora_rank", "max_loras", "max_num_partial_prefills",
    "max_parallel_loading_workers", "max_seq_len_to_capture", "mm_encoder_tp_mode",
    "mm_processor_cache_gb", "mm_processor_cache_type", "model_impl", "model_loader_extra_config",
    "multi_step_stream_outputs", "num_gpu_blocks_override", "num_lookahead_slots", "num_scheduler_steps",
    "observability_config", "offload_backend", "optimization_level", "otlp_traces_endpoint",
    "performance_mode", "preemption_mode", "prefix_caching_hash_algo", "pt_load_map_location",
    "ray_workers_use_nsight", "safetensors_load_strategy", "scheduler_cls", "scheduler_delay_factor",
    "scheduler_reserve_full_isl", "served_model_name", "show_hidden_metrics_for_version",
    "skip_mm_profiling", "stream_interval", "swap_space", "tokenizer_pool_extra_config",
    "tokenizer_pool_size", "tokenizer_pool_type", "trust_remote_code", "use_tqdm_on_load",
    "use_v2_block_manager", "watermark", "worker_cls", "worker_extension_cls",
)  # fmt: skip
"""How and where the model is computed, what is logged, and code that is not run: no answer depends on it."""

OF_LLM: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_IGNORED, Ignored()),
        "kv_cache_memory_bytes": Renamed("kv_cache_memory"),
        "ngram_prompt_lookup_min": Renamed("prompt_lookup_min"),
        "ngram_prompt_lookup_max": Renamed("prompt_lookup_max"),
        "tensor_parallel_size": ONE_DEVICE,
        "pipeline_parallel_size": ONE_DEVICE,
        "data_parallel_size": ONE_DEVICE,
        "decode_context_parallel_size": ONE_DEVICE,
        "prefill_context_parallel_size": ONE_DEVICE,
        "speculative_draft_tensor_parallel_size": ONE_DEVICE,
        "speculative_max_model_len": Ignored(),
        "speculative_disable_by_batch_size": Ignored(),
        "speculative_disable_mqa_scorer": Ignored(),
        "disable_logprobs_during_spec_decoding": Only((False,), "log-probabilities are always exact"),
        "speculative_model_quantization": Only((), "use draft_quantization"),
        "spec_decoding_acceptance_method": Only(("rejection_sampler",), "acceptance is lossless here"),
        "typical_acceptance_sampler_posterior_threshold": Only((), "acceptance is lossless here"),
        "typical_acceptance_sampler_posterior_alpha": Only((), "acceptance is lossless here"),
        "task": Only(("auto", "generate"), "models generate text; give 'generate'"),
        "runner": Only(("auto", "generate"), "models generate text; give 'generate'"),
        "convert": Only(("auto", "none"), "models generate text; give 'none'"),
        "tokenizer_mode": Only(("auto", "fast", "hf"), "tokenizers are tokenizer.json's; give 'auto'"),
        "skip_tokenizer_init": Only((False,), "give detokenize=False with requests that need no text"),
        "tokenizer_revision": Only((), "give a folder with the tokenizer as tokenizer="),
        "load_format": Only(("auto", "safetensors", "hf", "gguf"), "give safetensors or a GGUF file"),
        "config_format": Only(("auto", "hf"), "give a folder with config.json, or a GGUF file"),
        "hf_config_path": Only(("",), "put config.json into the model's folder"),
        "hf_overrides": Only(({},), "change config.json in a copy of the model's folder"),
        "rope_scaling": Only(({},), "change config.json in a copy of the model's folder"),
        "rope_theta": Only((), "change config.json in a copy of the model's folder"),
        "logits_processors": Only(([],), "use logit_bias, allowed_token_ids, bad_words or a grammar"),
        "logits_processor_pattern": Only((), "use logit_bias, allowed_token_ids, bad_words or a grammar"),
        "guided_decoding_disable_any_whitespace": Only((False,), "give a grammar without whitespace"),
        "guided_decoding_disable_additional_properties": Only(
            (False,), "write additionalProperties: false in the schema"
        ),
        "structured_outputs_config": Only(
            ({}, *({"backend": name} for name in ("auto", "xgrammar", "guidance", "outlines"))),
            "give nothing but a backend, and a grammar with each request",
        ),
        "disable_sliding_window": Only((False,), "lower max_model_len to the window"),
        "hf_token": Only((True, False), "set HF_TOKEN, or log in with `hf auth login`"),
        "logprobs_mode": Only(("raw_logprobs",), "log-probabilities are the model's own"),
        "reasoning_parser": Only(("",), "it is an option of `outrider serve`"),
        "enable_lora": NO_LORA,
        "enable_prompt_adapter": NO_LORA,
        "lora_modules": Only(([],), NO_LORA.right),
        "qlora_adapter_name_or_path": Only((), NO_LORA.right),
        "mm_processor_kwargs": TEXT_ALONE,
        "media_io_kwargs": TEXT_ALONE,
        "interleave_mm_strings": Only((False,), TEXT_ALONE.right),
        "enable_prompt_embeds": Only((False,), "give text or token ids"),
        "enable_return_routed_experts": Only((False,), "which experts ran is not told"),
        "pooler_config": Only((), "models generate text"),
        "override_pooler_config": Only((), "models generate text"),
        "kv_transfer_config": Only((), "the cache stays in this process"),
    }
)

OF_SPECULATIVE_CONFIG: Mapping[str, Rule] = MappingProxyType(
    {
        "draft_tensor_parallel_size": ONE_DEVICE,
        "max_model_len": Ignored(),
        "disable_by_batch_size": Ignored(),
        "disable_logprobs": Only((False,), "log-probabilities are always exact"),
        "disable_mqa_scorer": Ignored(),
        "disable_padded_drafter_batch": Ignored(),
        "enforce_eager": Ignored(),
        "parallel_drafting": Ignored(),
        "suffix_decoding_max_tree_depth": Ignored(),
        "suffix_decoding_max_spec_factor": Ignored(),
        "suffix_decoding_min_token_prob": Ignored(),
        "suffix_decoding_max_cached_requests": Ignored(),
        "spec_token_tree": Ignored(),
        "code_revision": Ignored(),
        "quantization": Renamed("draft_quantization"),
        "use_heterogeneous_vocab": Switch("draft_vocabulary", "text"),
        "revision": Only((), "give a folder that holds the draft's files"),
        "acceptance_method": Only(("rejection_sampler",), "acceptance is lossless here"),
        "rejection_sample_method": Only(("strict", "standard"), "acceptance is lossless here"),
        "posterior_threshold": Only((), "acceptance is lossless here"),
        "posterior_alpha": Only((), "acceptance is lossless here"),
    }
)
"""What the mapping may hold: drafts change no answer, so that most of what shapes them cannot either."""
