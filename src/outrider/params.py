"""How one request is sampled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from outrider.foreign import Ignored, Only, Renamed, Rule
from outrider.validation import Assignable, Strict

LOGIT_BIAS_LIMIT = 100  # as OpenAI's API
LONGEST_DRAFT = 1024  # tokens; twice the rows that a step has by default
MOST_CHARACTERS = 65_536
"""Of all `stop` strings, and of all `bad_words`: they are looked for at every token, and the others wait."""


def _as_tuple(value: object) -> object:
    """What is given as a list, kept as a tuple that nobody can change."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) else value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else () if value is None else _as_tuple(value)


def _few(texts: Sequence[str]) -> Sequence[str]:
    if (characters := sum(map(len, texts))) > MOST_CHARACTERS:
        raise ValueError(f"they have {characters} characters together, and can have {MOST_CHARACTERS}")
    return texts


Text = Annotated[str, Field(min_length=1)]
Strings = Annotated[Sequence[Text], BeforeValidator(_one_or_more), AfterValidator(_few)]
TokenId = Annotated[int, Field(lt=2**31)]
Bias = Annotated[float, Field(ge=-LOGIT_BIAS_LIMIT, le=LOGIT_BIAS_LIMIT)]
RepetitionFactor = Annotated[float, Field(ge=1e-44, le=1e38)]
"""Any that float32, in which logits are, tells from 0 and from infinity."""
TokenIds = Annotated[Sequence[TokenId], BeforeValidator(_one_or_more)]


class StructuredOutputs(Strict):
    """What an output has to fit: exactly one of these. vLLM's names.

    Raises ConfigError for none and for several.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    foreign: ClassVar[Mapping[str, Rule]] = {
        "backend": Ignored(),
        "disable_fallback": Ignored(),
        "disable_any_whitespace": Only((False,), "give a grammar or a regex that has no whitespace"),
        "disable_additional_properties": Only((False,), "write additionalProperties: false in the schema"),
        "whitespace_pattern": Only((), "give a grammar or a regex that has the whitespace"),
        "structural_tag": Only((), "give a grammar for the whole output"),
    }

    json_schema: str | dict[str, Any] | None = Field(default=None, alias="json")
    """Given as `json`: a JSON schema, as a mapping or as text."""
    json_object: Literal[True] | None = None
    """Any JSON object."""
    regex: Text | None = None
    """A regular expression that the whole output matches, in the syntax of Rust's crate `regex`."""
    choice: Annotated[Sequence[Text], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    """One of these texts."""
    grammar: Text | None = None
    """A context-free grammar, in the form of Lark or of llama.cpp's GBNF."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = self._given()
        if len(given) != 1:
            raise ValueError(
                f"structured outputs with {' and '.join(given) or 'nothing'}: give exactly one of json, "
                "json_object, regex, choice and grammar"
            )
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return self._given()[0]

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"structured_outputs.{self.kind}"

    def _given(self) -> list[str]:
        fields = type(self).model_fields.items()
        return [field.alias or name for name, field in fields if getattr(self, name) is not None]


class RequestOutputKind(Enum):
    """What each output of a stream holds. vLLM's names."""

    CUMULATIVE = 0
    """All so far."""
    DELTA = 1
    """What is new."""
    FINAL_ONLY = 2
    """There is one output, at the end."""


class SamplingParams(Assignable):
    """Sampling parameters with vLLM's names and meanings. Every one of them works with speculation.

    Fields can be assigned to. A request keeps a copy of its own, so that nothing that is assigned later
    changes it.

    Raises ConfigError for a value out of range, for an unknown name, and for what is vLLM's alone and would
    change an answer.
    """

    foreign: ClassVar[Mapping[str, Rule]] = {
        "guided_decoding": Renamed("structured_outputs"),
        "spaces_between_special_tokens": Ignored(),
        "skip_clone": Ignored(),
        "skip_reading_prefix_cache": Ignored(),
        "stream_interval": Ignored(),
        "flat_logprobs": Only((False,), "log-probabilities are a mapping for each position"),
        "best_of": Only((), "ask for n sequences with logprobs=0, and take the best by cumulative_logprob"),
        "use_beam_search": Only((False,), "use LLM.beam_search"),
        "length_penalty": Only((1.0,), "use LLM.beam_search, whose BeamSearchParams have it"),
        "early_stopping": Only((False,), "use LLM.beam_search"),
        "logits_processors": Only(([],), "use logit_bias, allowed_token_ids, bad_words or a grammar"),
        "extra_args": Only(({},), "they are for plug-ins of vLLM"),
        "thinking_token_budget": Only((-1,), "limit max_tokens"),
        "repetition_detection": Only((), "use repetition_penalty or frequency_penalty"),
        "logprob_token_ids": Only((), "ask for logprobs"),
        "prompt_logprob_token_ids": Only((), "ask for prompt_logprobs"),
        "trace_decode_token_ids": Only((), "give the tokens as a prompt, with prompt_logprobs"),
    }

    n: PositiveInt = 1
    """Sequences to generate for the prompt, each with noise of its own."""
    temperature: float = Field(default=1.0, ge=0)
    """0 chooses the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1)
    """0 or -1: all tokens."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: RepetitionFactor = 1.0
    logit_bias: dict[TokenId, Bias] | None = None
    """Added to the logits of these token ids."""
    allowed_token_ids: (
        Annotated[Sequence[TokenId], BeforeValidator(_as_tuple), Field(min_length=1)] | None
    ) = None
    bad_words: Strings = ()
    """Words that must not be generated, with or without a space before them."""
    stop: Strings = ()
    """Strings that end the output."""
    stop_token_ids: TokenIds = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: NonNegativeInt = 0
    """Until then neither EOS nor a stop token can be chosen, and stop strings do not stop."""
    max_tokens: PositiveInt | None = 16
    """None: as many as the context holds."""
    seed: int | None = None
    """None: drawn from the engine's seed, in order of arrival."""
    logprobs: NonNegativeInt | None = None
    """How many of the likeliest tokens to report at each position, besides the chosen one."""
    prompt_logprobs: NonNegativeInt | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True
    """False leaves the text empty, for those who read tokens alone."""
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    """What each output of `AsyncLLM` and `LLMEngine` holds."""
    truncate_prompt_tokens: PositiveInt | None = None
    """How many tokens of the prompt are read, from its end; None: all."""
    structured_outputs: StructuredOutputs | None = None
    """A grammar that the output fits, from its first token to EOS. What the model might say before or after
    is masked, in each row of a verification as in plain decoding."""
    trace_drafts: bool = False
    """Whether increments of a stream tell the drafts that were verified, with `logprobs` also how likely the
    drafter held each token."""
    cache_salt: Text | None = None
    """Requests share what is kept of finished ones, the beginnings of prompts and texts to draft from, with
    those of the same salt alone; None: with those that have none."""
    num_speculative_tokens: Annotated[int, Field(ge=0, le=LONGEST_DRAFT)] | None = None
    """Draft length of this request; 0 is plain decoding, None leaves it to the engine."""

    def model_post_init(self, context: Any, /) -> None:
        """See that fields do not exclude each other. Of those that are assigned, `copied` does."""
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower one"
            )
        if self.structured_outputs is not None and self.ignore_eos:
            raise ValueError(
                "ignore_eos = True with structured_outputs: an output that fits ends with EOS; drop one"
            )
        if self.stop and not self.detokenize:
            raise ValueError(
                "stop strings with detokenize = False: there is no text to find them in; drop one"
            )

    def copied(self) -> Self:
        """A copy that nobody else has. Raises ConfigError for fields that exclude each other."""
        return type(self)(**dict(self))
