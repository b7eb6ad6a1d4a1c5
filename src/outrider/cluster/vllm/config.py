"""What `LLM(engine="vllm")` was given, resolved once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from outrider.errors import ConfigError
from outrider.foreign import Only, Renamed, Rule, translated
from outrider.messages import shown
from outrider.option_types import Bytes, Count, LookupLength, SchedulingPolicy
from outrider.speculative_config import NONE
from outrider.validation import Strict

OWNER = "LLM(engine='vllm')"
NOT_VLLMS: Mapping[str, Rule] = MappingProxyType(
    {
        "device": Only(("auto",), "vLLM computes where its build is for; leave it out"),
        "backend": Only(("auto",), "vLLM has kernels of its own; leave it out"),
        "num_threads": Only((), "vLLM reads VLLM_CPU_OMP_THREADS_BIND in the environment"),
        "instruction_set": Only(("auto",), "vLLM has kernels of its own; leave it out"),
        "prompt_chunk_size": Only((), "give max_num_batched_tokens"),
        "memory_limit": Only((), "give gpu_memory_utilization, or kv_cache_memory"),
        "pooling": Only((), "embed with engine='outrider'"),
        "workload": Only((), "give num_speculative_tokens"),
        "acceptance": Only(("standard",), "vLLM's rule is rejection sampling, which is 'standard'"),
        "suffix_memory": Only((0,), "vLLM's own settings go into speculative_config"),
        "suffix_file": Only((), "vLLM keeps no texts across restarts; leave it out"),
        "draft_quantization": Only((), "give a draft model that is stored in fewer bits"),
        "draft_vocab_size": Only((), "vLLM's draft models say all tokens; leave it out"),
        "draft_vocabulary": Only(("same",), "give use_heterogeneous_vocab in speculative_config"),
        "kv_cache_memory_bytes": Renamed("kv_cache_memory"),
        "ngram_prompt_lookup_min": Renamed("prompt_lookup_min"),
        "ngram_prompt_lookup_max": Renamed("prompt_lookup_max"),
    }
)
"""Options of ours that vLLM has not, and vLLM's names of those that have one of ours."""


def _one(drafter: object) -> object:
    """The one drafter that vLLM has at a time."""
    names = list(drafter) if isinstance(drafter, (list, tuple)) else [drafter]
    if len(names) != 1:
        raise ValueError("vLLM drafts with one drafter; give one")
    if names[0] == "auto":
        raise ValueError("drafters are found for engine='outrider' alone; name one, for example 'ngram'")
    return None if names[0] == NONE else names[0]


def _number(length: object) -> object:
    if length == "auto":
        raise ValueError("vLLM drafts equally many tokens for all requests; give a number")
    return length


class VllmConfig(Strict):
    """Everything an engine of vLLM is built from. Names are those of `EngineConfig` where it has them, else
    vLLM's; None leaves an option to vLLM."""

    engine: Literal["vllm"] = "vllm"
    model: str
    """A Hugging Face folder or a hub id."""
    tokenizer: str | None = None
    revision: str | None = None
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """As in `EngineConfig`; requests come to vLLM as token ids."""
    generation_config: Annotated[str, Field(min_length=1)] = "auto"
    override_generation_config: dict[str, Any] = Field(default_factory=dict)
    """As in `EngineConfig`: requests come to vLLM with all parameters."""
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    max_model_len: Count | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    scheduling_policy: SchedulingPolicy = "priority"
    kv_cache_memory: Bytes | None = None
    block_size: Count | None = None
    enable_prefix_caching: bool = True
    seed: int = 0
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    enforce_eager: bool | None = None
    tensor_parallel_size: PositiveInt = 1
    pipeline_parallel_size: PositiveInt = 1
    distributed_executor_backend: str | None = None
    speculative_model: Annotated[str | None, BeforeValidator(_one)] = None
    """'ngram', 'suffix', 'mtp', a head's folder, or a draft model's."""
    num_speculative_tokens: Annotated[PositiveInt | None, BeforeValidator(_number)] = None
    prompt_lookup_min: LookupLength | None = None
    prompt_lookup_max: LookupLength | None = None
    speculative_config: dict[str, Any] | None = None
    """vLLM's own, which goes to vLLM as it is, in place of the four above."""
    others: dict[str, Any] = Field(default_factory=dict)
    """Further options by vLLM's names. Whether vLLM has them is seen where it is imported
    (`outrider.cluster.vllm.arguments`)."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        flat = {name: getattr(self, name) for name in OF_DRAFTS if getattr(self, name) is not None}
        if self.speculative_config is not None and flat:
            raise ValueError(
                f"speculative_config and {', '.join(flat)} are both given; use one form or the other"
            )
        if flat and self.speculative_model is None:
            raise ValueError(
                f"{', '.join(flat)} given without speculative_model; name a drafter, for example 'ngram'"
            )
        if self.speculative_model is not None and self.num_speculative_tokens is None:
            raise ValueError(
                f"speculative_model = {shown(self.speculative_model)} without num_speculative_tokens: say "
                "how many tokens vLLM drafts"
            )
        return self

    @property
    def drafters(self) -> tuple[str, ...]:
        """What drafts, by its name."""
        given = self.speculative_config or {}
        name = self.speculative_model or given.get("model") or given.get("method")
        return () if name is None else (str(name),)


OF_DRAFTS = ("speculative_model", "num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max")
_OWN = frozenset(VllmConfig.model_fields) - {"engine", "model", "others"}


def resolve_vllm(model: str, **options: Any) -> VllmConfig:
    """The configuration that `LLM(model, engine="vllm", **options)` means.

    Raises ConfigError for what vLLM cannot do, and for values out of range.
    """
    given = {
        name: value for name, value in translated(options, NOT_VLLMS, OWNER).items() if value is not None
    }
    if str(model).lower().endswith(".gguf") or model == "smollm2":
        raise ConfigError(
            f"model = {shown(model)}: vLLM reads no GGUF file; give the folder of a Hugging Face model"
        )
    others = {name: value for name, value in given.items() if name not in _OWN}
    return VllmConfig(
        model=model, others=others, **{name: value for name, value in given.items() if name in _OWN}
    )
