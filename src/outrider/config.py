"""The engine's configuration: resolved once from what the user wrote, then frozen."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from outrider.foreign import translated
from outrider.option_types import Bytes, Count, Quantization, SchedulingPolicy
from outrider.speculative_config import FLAT, SpeculativeConfig, speculative
from outrider.validation import Strict, refuse_unknown
from outrider.vllm_arguments import OF_LLM

STORED = {
    **{name: name for name in ("awq", "gptq", "fp8", "fbgemm_fp8", "compressed-tensors", "mxfp4", "gguf")},
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
}
"""vLLM's values of `quantization` for files that are quantised already, and the scheme that each names."""


def _dtype(value: object) -> object:
    """vLLM's other names, and PyTorch's own values, which are written as 'torch.float16'."""
    name = str(value).removeprefix("torch.")
    return {"half": "float16", "float": "float32"}.get(name, name)


def _cache_dtype(value: object) -> object:
    """vLLM's other names. Its caches of fewer bits than these are refused."""
    name = _dtype(value)
    if str(name).startswith(("fp8", "int4", "nvfp4", "turboquant")):
        raise ValueError("give 'int8', which takes a byte for each number of K and V, or 'auto'")
    return "int8" if name == "int8_per_token_head" else name


InstructionSet = Literal[
    "auto",
    "amx",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "avx2",
    "neon_i8mm",
    "neon_bf16",
    "neon_dot",
    "neon",
    "portable",
]
OWN_ENGINE: Final = "outrider"


class EngineConfig(Strict):
    """Everything our engine is built from."""

    engine: Literal["outrider"] = OWN_ENGINE
    """Which engine computes: this one, or 'vllm', which has options of its own
    (`outrider.cluster.vllm.config.VllmConfig`)."""
    model: str
    """A Hugging Face folder, a hub id, a GGUF file, one of the hub as 'org/name:Q4_K_M', or 'smollm2'."""
    tokenizer: str | None = None
    """A folder or hub id whose tokenizer replaces the model's own."""
    revision: str | None = None
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """A file with a Jinja template, or the template itself, which replaces the model's own."""
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "float64"], BeforeValidator(_dtype)
    ] = "auto"
    """'auto': weights as they are stored; on PyTorch's CPU kernels float32."""
    quantization: Quantization | None = None
    """Weights quantised when they are loaded, for the native CPU kernels or Triton's, in place of `dtype`;
    None: as `dtype` says."""
    stored_quantization: str | None = None
    """The scheme that the model's files have to be quantised by, where `quantization` names one of vLLM's,
    such as 'awq'; None: whichever they are."""
    device: str = "auto"
    backend: Literal["auto", "native", "triton", "torch"] = "auto"
    """'auto': native kernels on the CPU, Triton's on a GPU where they have what the model needs, else
    PyTorch."""
    num_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Of the native kernels; None: the cores that the process may use, as far as control groups allow."""
    instruction_set: InstructionSet = "auto"
    """Of the native kernels; 'auto': the best that the machine has."""
    kv_cache_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "float64", "int8"], BeforeValidator(_cache_dtype)
    ] = "auto"
    """'auto': the model's dtype on PyTorch; on native kernels bfloat16, or float32 with weights in
    float32 or float16; on Triton's the type of weights that are floats, else bfloat16. 'int8': K and V of
    each position and head in 8 bits, with a scale of their own; half of the memory of bfloat16."""
    max_model_len: Count | None = None
    """Prompt and output together; None: what the model and the cache allow."""
    max_num_seqs: Count = 64
    max_num_batched_tokens: Count = 512
    """Rows of one forward pass, drafted ones counted."""
    prompt_chunk_size: Count | None = None
    """Rows of prompts in one forward pass, which bounds how long others wait for their next token; None: 64
    on the native CPU kernels, which are fastest with about so many, elsewhere `max_num_batched_tokens`."""
    scheduling_policy: SchedulingPolicy = "priority"
    """'fcfs': requests are served in order of arrival, and one with a priority is refused; 'priority': those
    with a lower one earlier. `outrider serve` takes 'fcfs' unless it is told otherwise."""
    kv_cache_memory: Bytes = 2**30
    """Bytes for the K/V caches of target and draft model together."""
    memory_limit: Bytes | None = None
    """Bytes of resident memory that the process may take, what it takes already counted: a plan is made
    first, and what does not fit is refused. The cache gets what is left, within `kv_cache_memory` if that is
    given. On a GPU it is the GPU's memory."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of a GPU's memory that the process may take, as vLLM means it: a plan is made first, and what
    does not fit is refused. The cache gets what is left, within `kv_cache_memory` if that is given. Without
    it and `memory_limit`, what is free there has to hold the plan. Of no effect on the CPU."""
    enforce_eager: bool = False
    """Whether Triton's kernels are launched one by one, and not recorded as CUDA graphs: slower, in less
    memory, with the same tokens. Of no effect where nothing is recorded: on the CPU, and on PyTorch."""
    block_size: Annotated[int, Field(gt=0, le=65_536)] = 16
    enable_prefix_caching: bool = True
    seed: int = 0
    pooling: Literal["mean", "last"] | None = None
    """How `embed` makes one vector of a text's tokens; None: as the model says, if it is meant for that."""
    generation_config: Annotated[str, Field(min_length=1)] = "auto"
    """Where defaults of sampling come from, which `outrider serve` gives requests that say nothing else:
    'auto': from the model, 'vllm': from nowhere, or a generation_config.json or its folder."""
    override_generation_config: dict[str, Any] = Field(default_factory=dict)
    """Defaults of sampling that replace those, by the names of generation_config.json."""
    speculative: SpeculativeConfig | None = None

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        if self.quantization is not None and self.dtype != "auto":
            raise ValueError(
                f"quantization = {self.quantization!r} and dtype = {self.dtype!r} each say what the weights "
                "become; drop dtype to quantise them, or quantization to keep them in that dtype"
            )
        return self


MAPPINGS = frozenset({"speculative_config", "override_generation_config"})
"""Options of LLM whose values are mappings."""
OWN = frozenset(EngineConfig.model_fields) - {"model", "speculative", "stored_quantization"} | FLAT | MAPPINGS
"""Options of LLM beside the model."""
OPTIONS = OWN | OF_LLM.keys()
"""Those, and vLLM's, of which each is taken or refused by name."""


def resolve(model: str, **options: Any) -> EngineConfig:
    """The configuration that `LLM(model, **options)` means.

    Speculation is given as `speculative_model=` (a drafter or a list of them) with `num_speculative_tokens=`,
    `workload=`, `prompt_lookup_min=`, `prompt_lookup_max=`, `acceptance=`, `draft_quantization=`,
    `draft_vocab_size=` and `draft_vocabulary=`, or as one mapping `speculative_config=`. What 'auto' stands
    for is not looked for here. Raises ConfigError for both at once, for unknown names, for values out of
    range, and for what vLLM does and Outrider does not.
    """
    options = translated(options, OF_LLM, "LLM")
    refuse_unknown(options, OWN, "LLM")
    flat = {name: options.pop(name) for name in sorted(FLAT) if options.get(name) is not None}
    for name in FLAT:
        options.pop(name, None)
    if options.get("quantization") in STORED:
        options["stored_quantization"] = STORED[options.pop("quantization")]
    mapping = options.pop("speculative_config", None)
    return EngineConfig(model=model, speculative=speculative(flat, mapping), **options)
