"""The engine's configuration: resolved once from what the user wrote, then frozen."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from outrider.errors import ConfigError
from outrider.foreign import translated
from outrider.params import LONGEST_DRAFT
from outrider.validation import Strict, refuse_unknown
from outrider.vllm_arguments import OF_LLM, OF_SPECULATIVE_CONFIG

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

STORED = {
    **{name: name for name in ("awq", "gptq", "fp8", "fbgemm_fp8", "compressed-tensors", "mxfp4", "gguf")},
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
}
"""vLLM's values of `quantization` for files that are quantised already, and the scheme that each names."""


OTHER_NAMES = {"eagle3": "head", "ngram": "suffix"}
"""Names of methods that vLLM and others have, and ours."""


def parse_bytes(value: object) -> object:
    """Bytes from a number or from a string such as '512MiB'."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("give bytes as a number or as in '512MiB' or '2GB'")
    return int(Decimal(match[1]) * UNITS[match[2].upper()])


def _number_or_auto(value: object, parse: ValidatorFunctionWrapHandler) -> object:
    """One sentence for what a union would refuse with one for each of its members."""
    try:
        length = parse(value)
    except ValidationError:
        raise ValueError("give a number from 0 on, or 'auto'") from None
    if length != "auto" and length > LONGEST_DRAFT:
        raise ValueError(f"give a number from 0 to {LONGEST_DRAFT}, or 'auto'")
    return length


def _method(value: object) -> object:
    """Other names of methods, among them vLLM's, which has one of MTP for each family."""
    if isinstance(value, str) and value.endswith("_mtp"):
        return "mtp"
    return OTHER_NAMES.get(value, value) if isinstance(value, str) else value


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


Bytes = Annotated[int, Field(gt=0, lt=2**63), BeforeValidator(parse_bytes)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
LookupLength = Annotated[int, Field(gt=0, le=64)]
DraftLength = Annotated[NonNegativeInt | Literal["auto"], WrapValidator(_number_or_auto)]
Acceptance = Literal["coupled", "standard", "block"]
Quantization = Literal["int8", "int4"]
DraftVocabulary = Literal["same", "text"]
SchedulingPolicy = Literal["fcfs", "priority"]
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


class DrafterConfig(Strict):
    """One drafter of the chain. model: of the methods 'draft_model' and 'head'; quantization: of 'self'.

    'auto' stands for the chain that `outrider.finding` makes of what it finds.
    """

    method: Annotated[
        Literal["auto", "draft_model", "head", "mtp", "suffix", "self"], BeforeValidator(_method)
    ]
    model: Annotated[str, Field(min_length=1)] | None = None
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.method in ("draft_model", "head")) != (self.model is not None):
            raise ValueError(
                f"method = {self.method!r} with model = {self.model!r}: 'draft_model' and 'head' need the "
                "draft's model, and no other method takes one"
            )
        if (self.method == "self") != (self.quantization is not None):
            raise ValueError(
                f"method = {self.method!r} with quantization = {self.quantization!r}: 'self' needs the "
                "format to draft with, as in model = 'self:int4', and no other method takes one"
            )
        return self

    @property
    def has_weights(self) -> bool:
        """Whether it loads weights as they are stored, which may be quantised instead."""
        return self.model is not None or self.method == "mtp"

    @property
    def name(self) -> str:
        """As `speculative_model` has it."""
        return self.model or (f"self:{self.quantization}" if self.quantization else self.method)


AUTO = DrafterConfig(method="auto")
LOOKUP = DrafterConfig(method="suffix")
"""What costs next to nothing, and stands first in every chain that is found."""


class SpeculativeConfig(Strict):
    """What drafts, how much, and how drafts are judged. vLLM's names where it has them."""

    drafters: Annotated[tuple[DrafterConfig, ...], Field(min_length=1)]
    """Asked in this order, each where those before it have nothing to offer."""
    num_speculative_tokens: DraftLength = "auto"
    """Draft length: a number, or 'auto' for the one that pays best, request by request and step by step."""
    workload: Literal["structured", "creative"] | None = None
    """Bounds of 'auto', and what it expects at first: 5 to 8 tokens for code and the like, 2 to 4 for
    open-ended text; None: 0 to 16."""
    prompt_lookup_min: LookupLength = 2
    """Tokens that have to match what was seen before, for suffix lookup to draft."""
    prompt_lookup_max: LookupLength = 8
    """Tokens from which on a longer match makes nothing surer; all lengths are found."""
    suffix_memory: Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(parse_bytes)] = 2**24
    """Bytes for the texts of finished requests that suffix lookup finds matches in, the oldest dropped first;
    0: each request has its own text alone. Requests with a `cache_salt` share with those of the same one."""
    suffix_file: Annotated[str, Field(min_length=1)] | None = None
    """A file that keeps these texts across restarts, as they are; None: they go with the engine."""
    acceptance: Acceptance = "coupled"
    draft_quantization: Quantization | None = None
    """Weights of draft models, quantised when they are loaded, for the native CPU kernels, whatever the
    target's are; None: as the target's options say."""
    draft_vocab_size: Count | None = None
    """Tokens that draft models say: the first so many of their vocabulary, which are the frequent ones, what
    ends a text, and what they have read lately, where that is most of it; None: all."""
    draft_vocabulary: DraftVocabulary = "same"
    """'same': a draft model of another vocabulary than the target's is refused; 'text': it drafts text, which
    is spelt in the target's tokens."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for drafter in self.drafters:
            if self.drafters.count(drafter) > 1:
                raise ValueError(f"the drafter {drafter.name!r} is given twice; drop one")
        if AUTO in self.drafters and not self.seeks:
            raise ValueError("the drafter 'auto' stands for all of them; give it alone")
        loads = self.seeks or any(drafter.has_weights for drafter in self.drafters)
        if self.draft_quantization is not None and not loads:
            raise ValueError(
                f"draft_quantization = {self.draft_quantization!r} is for the weights of a draft model, and "
                f"{', '.join(repr(drafter.name) for drafter in self.drafters)} has none to load; drop it, "
                "or name a draft model"
            )
        for name, unset, methods in (
            ("draft_vocabulary", "same", {"draft_model"}),
            ("draft_vocab_size", None, {"draft_model", "self"}),
        ):
            value = getattr(self, name)
            if value != unset and not (self.seeks or methods & {drafter.method for drafter in self.drafters}):
                raise ValueError(
                    f"{name} = {value!r} is for a draft model, and "
                    f"{', '.join(repr(drafter.name) for drafter in self.drafters)} is none; drop it, or name "
                    "a draft model"
                )
        if self.workload is not None and self.num_speculative_tokens != "auto":
            raise ValueError(
                f"workload = {self.workload!r} sets bounds of num_speculative_tokens = 'auto', and it is "
                f"{self.num_speculative_tokens}; drop one"
            )
        if self.suffix_file is not None and not self.suffix_memory:
            raise ValueError(
                f"suffix_file = {self.suffix_file!r} with suffix_memory = 0: no texts are shared that it "
                "could keep; drop one"
            )
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError(
                f"prompt_lookup_min = {self.prompt_lookup_min} is more than "
                f"prompt_lookup_max = {self.prompt_lookup_max}; lower it"
            )
        return self

    @property
    def seeks(self) -> bool:
        """Whether the drafters are still to be found."""
        return self.drafters == (AUTO,)


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


_OF_SPECULATION = frozenset(SpeculativeConfig.model_fields) - {"drafters"}
_FLAT = _OF_SPECULATION | {"speculative_model"}
NONE = "none"
"""The `speculative_model` that means none, for the command line, where 'auto' is the default."""
MAPPINGS = frozenset({"speculative_config", "override_generation_config"})
"""Options of LLM whose values are mappings."""
OWN = (
    frozenset(EngineConfig.model_fields) - {"model", "speculative", "stored_quantization"} | _FLAT | MAPPINGS
)
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
    flat = {name: options.pop(name) for name in sorted(_FLAT) if options.get(name) is not None}
    for name in _FLAT:
        options.pop(name, None)
    if options.get("quantization") in STORED:
        options["stored_quantization"] = STORED[options.pop("quantization")]
    mapping = options.pop("speculative_config", None)
    return EngineConfig(model=model, speculative=_speculative(flat, mapping), **options)


def _speculative(flat: dict[str, Any], mapping: Any) -> SpeculativeConfig | None:
    if mapping is not None and flat:
        raise ConfigError(
            f"speculative_config and {', '.join(flat)} are both given; use one form or the other"
        )
    if mapping is not None:
        if not isinstance(mapping, dict):
            raise ConfigError(
                f"speculative_config = {mapping!r}: give a mapping such as "
                '{"method": "suffix", "num_speculative_tokens": 5}'
            )
        mapping = translated(mapping, OF_SPECULATIVE_CONFIG, "speculative_config")
        refuse_unknown(mapping, {"method", "model", *_OF_SPECULATION}, "speculative_config")
        others = {name: value for name, value in mapping.items() if name in _OF_SPECULATION}
        drafter = _mapped(mapping.get("method", "draft_model"), mapping.get("model"))
        return SpeculativeConfig(drafters=(drafter,), **others)
    if not flat:
        return None
    if "speculative_model" not in flat:
        raise ConfigError(
            f"{', '.join(flat)} given without speculative_model; name a drafter, for example 'suffix'"
        )
    given = flat.pop("speculative_model")
    names: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    if not names:
        raise ConfigError(f"speculative_model = {given!r}: name one drafter at least, for example 'suffix'")
    if NONE in names:
        idle = [repr(name) for name in names if name != NONE] + [*flat]
        if idle:
            raise ConfigError(f"speculative_model = {NONE!r} drafts nothing; drop it, or {', '.join(idle)}")
        return None
    return SpeculativeConfig(drafters=tuple(map(_drafter, names)), **flat)


def _mapped(method: Any, model: Any) -> DrafterConfig:
    """The drafter of `speculative_config`: 'self:int4' is a model's name there too."""
    if method in ("draft_model", "self") and isinstance(model, str) and model.startswith("self:"):
        return _self_drafter(model)
    return DrafterConfig(method=method, model=model)


def _drafter(name: Any) -> DrafterConfig:
    if name == "auto":
        return AUTO
    if name in ("suffix", "ngram", "[ngram]"):
        return LOOKUP
    if name in ("head", "[head]"):
        return DrafterConfig(method="head", model="head")
    if name in ("mtp", "[mtp]"):
        return DrafterConfig(method="mtp")
    if isinstance(name, str) and name.partition(":")[0] == "self":
        return _self_drafter(name)
    return DrafterConfig(method="draft_model", model=name)


def _self_drafter(name: str) -> DrafterConfig:
    for quantization in get_args(Quantization):
        if name == f"self:{quantization}":
            return DrafterConfig(method="self", quantization=quantization)
    forms = " or ".join(repr(f"self:{quantization}") for quantization in get_args(Quantization))
    raise ConfigError(
        f"speculative_model = {name!r}: for the target's own weights at fewer bits give {forms}"
    )
