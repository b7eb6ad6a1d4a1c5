"""What drafts, as the user wrote it: resolved once, then frozen."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

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
from outrider.option_types import Count, LookupLength, Quantization, parse_bytes
from outrider.params import LONGEST_DRAFT
from outrider.validation import Strict, refuse_unknown
from outrider.vllm_arguments import OF_SPECULATIVE_CONFIG

OTHER_NAMES = {"eagle3": "head", "ngram": "suffix"}
"""Names of methods that vLLM and others have, and ours."""


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


DraftLength = Annotated[NonNegativeInt | Literal["auto"], WrapValidator(_number_or_auto)]
Acceptance = Literal["coupled", "standard", "block"]
DraftVocabulary = Literal["same", "text"]


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


_OF_SPECULATION = frozenset(SpeculativeConfig.model_fields) - {"drafters"}
FLAT = _OF_SPECULATION | {"speculative_model"}
NONE = "none"
"""The `speculative_model` that means none, for the command line, where 'auto' is the default."""


def speculative(flat: dict[str, Any], mapping: Any) -> SpeculativeConfig | None:
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
