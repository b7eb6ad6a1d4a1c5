"""How one request is sampled."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from outrider.validation import Strict

LOGIT_BIAS_LIMIT = 100  # as OpenAI's API


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else () if value is None else value


Strings = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
TokenIds = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]


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
    repetition_penalty: float = Field(default=1.0, gt=0)
    logit_bias: dict[int, Annotated[float, Field(ge=-LOGIT_BIAS_LIMIT, le=LOGIT_BIAS_LIMIT)]] | None = None
    """Added to the logits of these token ids."""
    allowed_token_ids: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
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
    num_speculative_tokens: NonNegativeInt | None = None
    """Draft length of this request; 0 is plain decoding, None leaves it to the engine."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower one"
            )
        return self
