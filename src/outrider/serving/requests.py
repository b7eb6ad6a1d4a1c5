"""What clients may send. `outrider.serving.fields` says what becomes of a field that is not listed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from outrider.errors import ConfigError, RequestError
from outrider.params import RepetitionFactor, SamplingParams, StructuredOutputs
from outrider.serving.bodies import AS_OTHER, BY_KIND, AsText, Body, Text
from outrider.serving.formats import ResponseFormat, Structured
from outrider.serving.tools import NamedChoice, SentCall, ToolChoice, Tools

MAX_LOGPROBS = 20
MAX_WORDS = 1000
"""Of `stop` and of `bad_words`: all are looked for at each token, and meanwhile the other requests wait."""
MAX_SALT = 1024  # characters
MAX_USER = 256  # characters: it is written to the log
MOST_CLIENT_PRIORITY = 60
"""To either side. Each is ten seconds of head start, so this is as long as a request may take by default."""
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's


def _refuse(value: object) -> None:
    """Clients send some fields whether they use them or not; a value that asks for nothing does no harm."""
    if value not in (None, False, [], {}):
        raise ValueError("this is not supported; leave it out")


def _refuse_functions(value: object) -> None:
    if value not in (None, "none", [], {}):
        raise ValueError("this form is not supported any more; give tools and tool_choice")


def _prompt(value: object, parse: ValidatorFunctionWrapHandler) -> object:
    try:
        return parse(value)
    except ValidationError:
        raise ValueError(
            "give a string, a list of token ids, or a list of either, none of them empty"
        ) from None


Unsupported = Annotated[None, BeforeValidator(_refuse)]
UnsupportedFunctions = Annotated[None, BeforeValidator(_refuse_functions)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
Prompts = Annotated[
    Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)],
    WrapValidator(_prompt),
]
Words = Annotated[list[Text], Field(max_length=MAX_WORDS)]
Count = Annotated[int, Field(ge=0)]
Logprobs = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]

PASSED_ON = (
    "n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "allowed_token_ids", "bad_words", "stop", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "min_tokens", "seed", "prompt_logprobs",
    "skip_special_tokens", "cache_salt", "num_speculative_tokens",
)  # fmt: skip
"""Fields that mean what they mean in SamplingParams, which also knows their ranges."""


def num_prompts(given: Prompts) -> int:
    """How many prompts these are."""
    return 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)


class StreamOptions(Body):
    place = "stream_options."

    include_usage: bool | None = None
    """Send a last chunk that says how many tokens there were."""
    continuous_usage_stats: bool | None = None
    """With that, have each chunk say how many there were so far."""


class Sampling(Body):
    """Fields of both endpoints. Null is the default."""

    model: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: RepetitionFactor | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], float] | None = None
    """Token ids, as strings."""
    allowed_token_ids: Tokens | None = None
    bad_words: Words | None = None
    stop: Annotated[AsText | Annotated[Words, Tag(AS_OTHER)], BY_KIND] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    seed: int | None = None
    prompt_logprobs: Logprobs | None = None
    skip_special_tokens: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: Structured | None = None
    cache_salt: Annotated[Text, Field(min_length=1, max_length=MAX_SALT)] | None = None
    """What is kept of finished requests is shared among those of the same salt alone."""
    num_speculative_tokens: Count | None = None
    """Draft length of this request; 0 is plain decoding."""
    speculation_metrics: bool | None = None
    """Report on the drafts of this request, in `metrics.speculative_decoding`."""
    speculation_trace: bool | None = None
    """Tell in a stream where each token came from, and the drafts with what fell of them."""
    return_token_ids: bool | None = None
    priority: Annotated[int, Field(ge=-MOST_CLIENT_PRIORITY, le=MOST_CLIENT_PRIORITY)] | None = None
    """A request with a lower one is served earlier, where the server has `--scheduling-policy priority`."""
    user: Annotated[Text, Field(max_length=MAX_USER)] | None = None
    """Is written to the log."""

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return bool(self.include_usage and self.stream_options and self.stream_options.continuous_usage_stats)

    def _params(
        self, defaults: Mapping[str, Any], *, max_tokens: int | None, logprobs: int | None
    ) -> SamplingParams:
        """What is asked for, and elsewhere the model's defaults.

        Raises ConfigError for a value out of range and for fields that exclude each other.
        """
        if self.stream_options is not None and not self.stream:
            raise ConfigError(
                "stream_options are for stream = true; set it or leave them out", "stream_options"
            )
        if self.stream and self.prompt_logprobs is not None:
            raise ConfigError(
                "prompt_logprobs cannot be streamed; leave out one of the two", "prompt_logprobs"
            )
        if self.speculation_trace and not self.stream:
            raise ConfigError(
                "speculation_trace is for stream = true; set it or leave it out", "speculation_trace"
            )
        values = {name: getattr(self, name) for name in PASSED_ON if getattr(self, name) is not None}
        if self.logit_bias is not None:
            values["logit_bias"] = {int(token): bias for token, bias in self.logit_bias.items()}
        values["structured_outputs"] = self._structured()
        values["trace_drafts"] = bool(self.speculation_trace)
        values |= {"max_tokens": max_tokens, "logprobs": logprobs}
        return SamplingParams(**{**defaults, **values})

    def _structured(self) -> StructuredOutputs | None:
        wanted = None if self.response_format is None else self.response_format.for_params()
        if self.structured_outputs is None:
            return wanted
        if wanted is not None:
            raise ConfigError(
                "response_format and structured_outputs are both given; leave out one of the two",
                "structured_outputs",
            )
        return self.structured_outputs.for_params()


class CompletionRequest(Sampling):
    prompt: Prompts
    max_tokens: Count | None = None
    logprobs: Logprobs | None = None
    echo: bool | None = None
    """Begin the text with the prompt."""
    add_special_tokens: bool | None = None
    """Whether a prompt that is text gets the tokens that the model expects at the beginning; true."""
    best_of: Annotated[int, Field(ge=1)] | None = None

    @property
    def num_prompts(self) -> int:
        return num_prompts(self.prompt)

    @property
    def scored_only(self) -> bool:
        """Nothing is to be generated: the prompt's log-probabilities are asked for."""
        return self.max_tokens == 0

    @property
    def continuous_usage(self) -> bool:
        return super().continuous_usage and not self.scored_only

    def sampling_params(self, defaults: Mapping[str, Any]) -> SamplingParams:
        """defaults: of the model, by the names of SamplingParams. Raises ConfigError."""
        if self.best_of not in (None, self.n or 1):
            raise ConfigError(
                f"best_of = {self.best_of} is not supported; leave it out, or equal to n", "best_of"
            )
        if self.scored_only and not self.echo:
            raise ConfigError("max_tokens = 0 generates nothing; raise it, or set echo", "max_tokens")
        if self.echo and self.stream and self.logprobs is not None:
            raise ConfigError("echo with logprobs cannot be streamed; leave out one of the three", "echo")
        max_tokens = DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else max(1, self.max_tokens)
        params = self._params(defaults, max_tokens=max_tokens, logprobs=self.logprobs)
        if self.echo and self.logprobs is not None and params.prompt_logprobs is None:
            params = params.model_copy(update={"prompt_logprobs": self.logprobs})
        return params


class TextPart(Body):
    place = "messages.content."

    type: Literal["text"]
    text: Text


Content = Annotated[AsText | Annotated[list[TextPart], Tag(AS_OTHER)], BY_KIND]


class Message(Body):
    """A message of a conversation. The fields after `content` are those of an answer that is sent back, and
    of a tool's result."""

    place = "messages."

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    """Null is for an assistant's."""
    name: Text | None = None
    """Is for the model's chat template."""
    tool_calls: list[SentCall] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    refusal: Unsupported = None
    function_call: UnsupportedFunctions = None
    annotations: Unsupported = None
    audio: Unsupported = None

    def for_template(self, where: str) -> dict[str, Any]:
        """As `LLM.chat` takes it. where: the message's place in the request."""
        plain = self.model_dump(
            include={"role", "content", "name", "tool_call_id", "reasoning_content", "reasoning"},
            exclude_none=True,
        )
        calls = [
            call.for_template(f"{where}.tool_calls[{n}]") for n, call in enumerate(self.tool_calls or ())
        ]
        return plain | {"tool_calls": calls} if calls else {"content": None} | plain


Messages = Annotated[list[Message], Field(min_length=1)]


class LaidOut(Body):
    """Fields that say what a conversation looks like to the model, besides its messages."""

    tools: Tools | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the model's chat template, such as `enable_thinking`."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """A variable of some chat templates."""


class ChatRequest(Sampling, LaidOut):
    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """False: at most one call."""
    functions: UnsupportedFunctions = None
    function_call: UnsupportedFunctions = None

    @property
    def names_a_tool(self) -> bool:
        return isinstance(self.tool_choice, NamedChoice)

    def sampling_params(self, defaults: Mapping[str, Any]) -> SamplingParams:
        """defaults: of the model, by the names of SamplingParams. Raises ConfigError."""
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ConfigError(
                "max_tokens and max_completion_tokens are both given; leave out max_tokens", "max_tokens"
            )
        if self.top_logprobs and not self.logprobs:
            raise ConfigError(
                "top_logprobs are for logprobs = true; set it or leave them out", "top_logprobs"
            )
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return self._params(
            defaults,
            max_tokens=defaults.get("max_tokens") if limit is None else limit,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class TokenizeRequest(LaidOut):
    """Either `prompt` or `messages`."""

    model: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    """Of a prompt; a conversation's are its template's."""
    add_generation_prompt: bool = True
    """End a conversation where the answer begins."""
    return_token_strs: bool = False

    def check(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("give either prompt or messages")


class DetokenizeRequest(Body):
    model: Text | None = None
    tokens: list[TokenId]
