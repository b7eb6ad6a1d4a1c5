"""What `LLM` takes beside the model, for type checkers, editors and `inspect.signature`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Literal, TypedDict, TypeVar, get_type_hints

from outrider.config import EngineConfig, InstructionSet
from outrider.speculative_config import SpeculativeConfig

Method = TypeVar("Method", bound=Callable[..., Any])


class EngineOptions(TypedDict, total=False):
    """Options of `outrider.config.EngineConfig`, which says what each does."""

    engine: Literal["outrider", "vllm"] | None
    tokenizer: str | None
    revision: str | None
    chat_template: str | None
    dtype: str | None
    quantization: str | None
    device: str | None
    backend: Literal["auto", "native", "triton", "torch"] | None
    num_threads: int | None
    instruction_set: InstructionSet | None
    kv_cache_dtype: str | None
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    prompt_chunk_size: int | None
    scheduling_policy: Literal["fcfs", "priority"] | None
    kv_cache_memory: int | str | None
    memory_limit: int | str | None
    gpu_memory_utilization: float | None
    enforce_eager: bool | None
    block_size: int | None
    enable_prefix_caching: bool | None
    seed: int | None
    pooling: Literal["mean", "last"] | None
    generation_config: str | None
    override_generation_config: Mapping[str, Any] | None


class SpeculativeOptions(TypedDict, total=False):
    """Options of `outrider.speculative_config.SpeculativeConfig`, one by one or as one mapping."""

    speculative_model: str | Sequence[str] | None
    num_speculative_tokens: int | Literal["auto"] | None
    workload: Literal["structured", "creative"] | None
    prompt_lookup_min: int | None
    prompt_lookup_max: int | None
    suffix_memory: int | str | None
    suffix_file: str | None
    acceptance: Literal["coupled", "standard", "block"] | None
    draft_quantization: Literal["int8", "int4"] | None
    draft_vocab_size: int | None
    draft_vocabulary: Literal["same", "text"] | None
    speculative_config: Mapping[str, Any] | None


class VllmOptions(TypedDict, total=False):
    """Options of vLLM's that scripts often give. `outrider.vllm_arguments` says what becomes of each."""

    compilation_config: Any
    cpu_offload_gb: float | None
    disable_custom_all_reduce: bool | None
    disable_log_stats: bool | None
    distributed_executor_backend: str | None
    enable_chunked_prefill: bool | None
    hf_overrides: Mapping[str, Any] | None
    load_format: str | None
    max_logprobs: int | None
    pipeline_parallel_size: int | None
    swap_space: float | None
    tensor_parallel_size: int | None
    tokenizer_mode: str | None
    trust_remote_code: bool | None
    use_v2_block_manager: bool | None


class Options(EngineOptions, SpeculativeOptions, VllmOptions, total=False):
    """All options by name. None leaves an option at its default."""


def signed(method: Method) -> Method:
    """Give a method whose last parameter is `**options: Unpack[Options]` a signature with each option and its
    default, for `inspect.signature` and what is built on it."""
    *first, _ = Signature.from_callable(method).parameters.values()
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=_default(name), annotation=hint)
        for name, hint in get_type_hints(Options).items()
    ]
    vars(method)["__signature__"] = Signature([*first, *options])
    return method


def _default(name: str) -> Any:
    for config in (EngineConfig, SpeculativeConfig):
        if name in config.model_fields:
            return config.model_fields[name].default
    return None
