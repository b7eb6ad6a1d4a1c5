"""How a request is sampled, in vLLM's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.errors import ConfigError
from outrider.params import SamplingParams

LEAST_TEMPERATURE = 0.01
"""vLLM raises any other to it, but 0."""
SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
    "min_tokens",
    "max_tokens",
    "logprobs",
    "prompt_logprobs",
)
"""What both have, with one meaning. Text is made here, so that neither stop strings nor what concerns
detokenizing reaches vLLM; each of `n` sequences is a request of its own."""


def checked(params: SamplingParams, draft_length: int | None, *, samples: bool = True) -> None:
    """Raise ConfigError for what vLLM would do otherwise. draft_length: of the engine; None: it drafts
    nothing. samples: whether vLLM honours a temperature beside drafts."""
    if params.temperature and draft_length is not None and not samples:
        raise ConfigError(
            f"temperature = {params.temperature}: this build of vLLM draws wrong tokens above temperature 0 "
            "where it drafts; give 0, or load the model without drafts",
            "temperature",
        )
    if 0 < params.temperature < LEAST_TEMPERATURE:
        raise ConfigError(
            f"temperature = {params.temperature}: vLLM takes 0, and {LEAST_TEMPERATURE} at least",
            "temperature",
        )
    asked = params.num_speculative_tokens
    if draft_length is not None and asked not in (None, draft_length):
        raise ConfigError(
            f"num_speculative_tokens = {asked}: vLLM drafts {draft_length} tokens for all requests; leave it "
            "out, or load the model with another number",
            "num_speculative_tokens",
        )


def arguments_of(params: SamplingParams, index: int, ends: Sequence[int]) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams for one sequence, without its structured outputs.

    index: of the sequence among the `n`; ends: the tokens that end the model's outputs.
    """
    given: dict[str, Any] = {name: getattr(params, name) for name in SAME}
    stops = [*params.stop_token_ids, *(() if params.ignore_eos else ends)]
    return given | {
        "seed": None if params.seed is None else (params.seed + index) % 2**63,
        "stop_token_ids": list(dict.fromkeys(stops)),
        "bad_words": list(params.bad_words),
        "allowed_token_ids": None if params.allowed_token_ids is None else list(params.allowed_token_ids),
        "detokenize": False,
    }


def structure_of(params: SamplingParams) -> dict[str, Any] | None:
    """Arguments of vLLM's StructuredOutputsParams; None where the text is free."""
    wanted = params.structured_outputs
    if wanted is None:
        return None
    values = wanted.model_dump(exclude_none=True, by_alias=True)
    return {name: list(value) if name == "choice" else value for name, value in values.items()}
