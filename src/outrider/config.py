"""The engine's configuration: resolved once from what the user wrote, then frozen."""

from __future__ import annotations

import re
import warnings
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from outrider.errors import ConfigError
from outrider.validation import Strict, refuse_unknown

DEFAULT_DRAFT_LENGTH = 5
UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

_warned: set[str] = set()


def parse_bytes(value: object) -> object:
    """Bytes from a number or from a string such as '512MiB'."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("give bytes as a number or as in '512MiB' or '2GB'")
    return int(Decimal(match[1]) * UNITS[match[2].upper()])


Bytes = Annotated[int, Field(gt=0, lt=2**63), BeforeValidator(parse_bytes)]
Acceptance = Literal["coupled", "standard", "block"]


class SpeculativeConfig(Strict):
    """What drafts, how much, and how drafts are judged. vLLM's names where it has them."""

    method: Literal["draft_model", "ngram"]
    model: Annotated[str, Field(min_length=1)] | None = None
    num_speculative_tokens: NonNegativeInt = DEFAULT_DRAFT_LENGTH
    prompt_lookup_min: PositiveInt = 2
    prompt_lookup_max: PositiveInt = 4
    acceptance: Acceptance = "coupled"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.method == "draft_model") != (self.model is not None):
            raise ValueError(
                f"method = {self.method!r} with model = {self.model!r}: 'draft_model' needs the draft's "
                "model, and no other method takes one"
            )
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError(
                f"prompt_lookup_min = {self.prompt_lookup_min} is more than "
                f"prompt_lookup_max = {self.prompt_lookup_max}; lower it"
            )
        return self


class EngineConfig(Strict):
    """Everything an engine is built from."""

    model: str
    """A Hugging Face folder, a hub id, a GGUF file, or 'smollm2'."""
    tokenizer: str | None = None
    """A folder or hub id whose tokenizer replaces the model's own."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """'auto': weights as they are stored, float16 on the CPU as float32; on PyTorch's CPU kernels float32."""
    quantization: Literal["int8", "int4"] | None = None
    """Weights quantised when they are loaded, for the native CPU kernels, in place of `dtype`; None: as
    `dtype` says."""
    device: str = "auto"
    backend: Literal["auto", "native", "torch"] = "auto"
    """'auto': native kernels on the CPU, PyTorch elsewhere."""
    num_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Of the native kernels; None: the physical cores that the process may use."""
    instruction_set: Literal["auto", "amx", "avx512_bf16", "avx512_vnni", "avx2", "portable"] = "auto"
    """Of the native kernels; 'auto': the best that the machine has."""
    kv_cache_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """'auto': the model's dtype on PyTorch; on native kernels bfloat16, or float32 with float32 weights."""
    max_model_len: PositiveInt | None = None
    """Prompt and output together; None: what the model and the cache allow."""
    max_num_seqs: PositiveInt = 64
    max_num_batched_tokens: PositiveInt = 512
    """Rows of one forward pass, drafted ones counted."""
    kv_cache_memory: Bytes = 2**30
    """Bytes for the K/V caches of target and draft model together."""
    block_size: PositiveInt = 16
    enable_prefix_caching: bool = True
    seed: int = 0
    speculative: SpeculativeConfig | None = None

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        if self.quantization is not None and self.dtype != "auto":
            raise ValueError(
                f"quantization = {self.quantization!r} and dtype = {self.dtype!r} each say what the weights "
                "become; drop dtype to quantise them, or quantization to keep them in that dtype"
            )
        return self


def resolve(model: str, **options: Any) -> EngineConfig:
    """The configuration that `LLM(model, **options)` means.

    Speculation is given as `speculative_model=` with `num_speculative_tokens=`, `prompt_lookup_min=`,
    `prompt_lookup_max=` and `acceptance=`, or as one mapping `speculative_config=`. Raises ConfigError for
    both at once, for unknown names and for values out of range.
    """
    if options.pop("use_v2_block_manager", None) is not None and "v2" not in _warned:
        _warned.add("v2")
        warnings.warn("use_v2_block_manager has no effect: there is one block manager", stacklevel=3)
    flat_names = {"speculative_model", *SpeculativeConfig.model_fields} - {"method", "model"}
    flat = {name: options.pop(name) for name in sorted(flat_names) if options.get(name) is not None}
    for name in flat_names:
        options.pop(name, None)
    mapping = options.pop("speculative_config", None)
    valid = {*EngineConfig.model_fields, *flat_names, "speculative_config", "use_v2_block_manager"}
    refuse_unknown(options, valid - {"speculative"}, "LLM")
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
                '{"method": "ngram", "num_speculative_tokens": 5}'
            )
        refuse_unknown(mapping, SpeculativeConfig.model_fields, "speculative_config")
        if "method" not in mapping:
            mapping = {"method": "draft_model", **mapping}
        return SpeculativeConfig(**mapping)
    if not flat:
        return None
    if "speculative_model" not in flat:
        raise ConfigError(
            f"{', '.join(flat)} given without speculative_model; name a drafter, for example 'ngram'"
        )
    drafter = flat.pop("speculative_model")
    if drafter in ("ngram", "[ngram]"):
        return SpeculativeConfig(method="ngram", **flat)
    return SpeculativeConfig(method="draft_model", model=drafter, **flat)
