"""The shapes of answers, as OpenAI's API documents them. Fields beyond those are vLLM's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from outrider.outputs import RequestOutput, SpeculationStats


class PromptDetails(TypedDict):
    cached_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class SpeculationMetrics(TypedDict):
    """acceptance_histogram: entry j counts the drafts of which j tokens were accepted; num_spec_tokens: the
    longest draft."""

    mean_acceptance_length: float
    draft_acceptance_rate: float
    acceptance_histogram: list[int]
    num_spec_steps: int
    num_accepted_draft_tokens: int
    num_draft_tokens: int
    num_spec_tokens: int


class Metrics(TypedDict):
    speculative_decoding: SpeculationMetrics


class ChatLogprob(TypedDict):
    """bytes: null for a token that is part of a character only."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(ChatLogprob):
    top_logprobs: list[ChatLogprob]


class ChatLogprobs(TypedDict):
    content: list[ChatTokenLogprob]
    refusal: None


class CompletionLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(TypedDict):
    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
FinishReason = Literal["stop", "length", "tool_calls"] | None


class Choice(TypedDict):
    """What choices of all kinds hold."""

    index: int
    finish_reason: FinishReason
    stop_reason: int | str | None
    token_ids: NotRequired[list[int]]


class CalledFunction(TypedDict):
    name: str
    arguments: str


class MessageCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(TypedDict):
    """content: null beside calls without any. reasoning: the younger name of reasoning_content."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[MessageCall]]


class ChatChoice(Choice):
    message: ChatMessage
    logprobs: ChatLogprobs | None


class DeltaFunction(TypedDict, total=False):
    name: str
    arguments: str


class DeltaCall(TypedDict):
    """index: of the call in its message. The first piece of a call has its id, type and name."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: DeltaFunction


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str
    reasoning_content: str
    reasoning: str
    tool_calls: list[DeltaCall]


class ChatChunkChoice(Choice):
    delta: Delta
    logprobs: ChatLogprobs | None


class CompletionChoice(Choice):
    text: str
    logprobs: CompletionLogprobs | None
    prompt_logprobs: NotRequired[PromptLogprobs]
    prompt_token_ids: NotRequired[list[int]]


class Head(TypedDict):
    """What the whole answer and each chunk of it begin with."""

    id: str
    object: str
    created: int
    model: str


class ChatCompletion(Head):
    choices: list[ChatChoice]
    usage: Usage
    metrics: NotRequired[Metrics]
    prompt_logprobs: NotRequired[PromptLogprobs]
    prompt_token_ids: NotRequired[list[int]]


class Completion(Head):
    choices: list[CompletionChoice]
    usage: Usage
    metrics: NotRequired[Metrics]


class ModelCard(TypedDict):
    """max_model_len: tokens of prompt and answer together; default_sampling_params: what a request gets
    that does not say otherwise, where that is not neutral."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    default_sampling_params: dict[str, float]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelCard]


class Tokenized(TypedDict):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str]]


class Detokenized(TypedDict):
    prompt: str


class Health(TypedDict):
    status: str


class Version(TypedDict):
    version: str


def usage_of(outputs: list[RequestOutput], *, completion: bool = True) -> Usage:
    """Counts of one call. completion: whether what was generated counts."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    generated = sum(len(c.token_ids) for output in outputs for c in output.outputs) if completion else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": sum(output.num_cached_tokens for output in outputs)},
    }


def metrics_of(outputs: list[RequestOutput]) -> Metrics:
    """The drafts of one call, all its sequences together."""
    stats = sum((c.speculation for output in outputs for c in output.outputs), SpeculationStats())
    reached = [stats.drafts, *stats.accepted_by_position, 0]
    return {
        "speculative_decoding": {
            "mean_acceptance_length": stats.acceptance_length,
            "draft_acceptance_rate": stats.accepted / stats.drafted if stats.drafted else 0.0,
            "acceptance_histogram": [a - b for a, b in pairwise(reached)],
            "num_spec_steps": stats.drafts,
            "num_accepted_draft_tokens": stats.accepted,
            "num_draft_tokens": stats.drafted,
            "num_spec_tokens": len(stats.drafted_by_position),
        }
    }


def prompt_logprobs_of(output: RequestOutput) -> PromptLogprobs:
    """vLLM's form: for each token of the prompt, what was likely at its place by token id."""
    forms: list[dict[str, PromptLogprob] | None] = []
    for logprobs in output.prompt_logprobs or ():
        if logprobs is None:
            forms.append(None)
            continue
        forms.append(
            {
                str(token): {
                    "logprob": finite(lp.logprob),
                    "rank": lp.rank,
                    "decoded_token": lp.decoded_token,
                }
                for token, lp in logprobs.items()
            }
        )
    return forms


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes what cannot happen like this."""
    return max(logprob, -9999.0)


def with_optional(form: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The form with those of the optional fields that are not None."""
    return form | {name: value for name, value in optional.items() if value is not None}
