"""How one request is sampled."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from outrider.validation import Strict

LOGIT_BIAS_LIMIT = 100  # as OpenAI's API
LONGEST_DRAFT = 1024  # tokens; twice the rows that a step has by default
MOST_CHARACTERS = 65_536
"""Of all `stop` strings, and of all `bad_words`: they are looked for at every token, and the others wait."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else () if value is None else value


def _few(texts: tuple[str, ...]) -> tuple[str, ...]:
    if (characters := sum(map(len, texts))) > MOST_CHARACTERS:
        raise ValueError(f"they have {characters} characters together, and can have {MOST_CHARACTERS}")
    return texts


Strings = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple), AfterValidator(_few)
]
TokenId = Annotated[int, Field(lt=2**31)]
Bias = Annotated[float, Field(ge=-LOGIT_BIAS_LIMIT, le=LOGIT_BIAS_LIMIT)]
RepetitionFactor = Annotated[float, Field(ge=1e-44, le=1e38)]
"""Any that float32, in which logits are, tells from 0 and from infinity."""
TokenIds = Annotated[tuple[TokenId, ...], BeforeValidator(_as_tuple)]


class StructuredOutputs(Strict):
    """What an output has to fit: exactly one of these. vLLM's names.

    Raises ConfigError for none and for several.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    json_schema: Annotated[str | dict[str, Any] | None, Field(alias="json")] = None
    """Given as `json`: a JSON schema, as a mapping or as text."""
    json_object: Literal[True] | None = None
    """Any JSON object."""
    regex: Annotated[str, Field(min_length=1)] | None = None
    """A regular expression that the whole output matches, in the syntax of Rust's crate `regex`."""
    choice: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """One of these texts."""
    grammar: Annotated[str, Field(min_length=1)] | None = None
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


class SamplingParams(Strict):
    """Sampling parameters with vLLM's names and meanings. Every one of them works with speculation.

    Raises ConfigError for a value out of range and for an unknown name.
    """

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
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-LOGIT_BIAS_LIMIT, le=LOGIT_BIAS_LIMIT)]] | None = (
        None
    )
    """Added to the logits of these token ids."""
    allowed_token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
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
    structured_outputs: StructuredOutputs | None = None
    """A grammar that the output fits, from its first token to EOS. What the model might say before or after
    is masked, in each row of a verification as in plain decoding."""
    trace_drafts: bool = False
    """Whether increments of a stream tell the drafts that were verified, with `logprobs` also how likely the
    drafter held each token."""
    num_speculative_tokens: Annotated[int, Field(ge=0, le=LONGEST_DRAFT)] | None = None
    """Draft length of this request; 0 is plain decoding, None leaves it to the engine."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower one"
            )
        if self.structured_outputs is not None and self.ignore_eos:
            raise ValueError(
                "ignore_eos = True with structured_outputs: an output that fits ends with EOS; drop one"
            )
        return self
