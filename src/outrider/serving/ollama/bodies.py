"""What clients of Ollama send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Tag

from outrider.serving.bodies import AS_OTHER, AS_TEXT, BY_KIND, AsText, Body, Text
from outrider.serving.requests import Unsupported

Taken = Any
"""A field that says nothing to a model here."""


def _empty(value: object) -> None:
    if value not in (None, ""):
        raise ValueError("this is not supported; leave it out")


Empty = Annotated[None, BeforeValidator(_empty)]


class Options(Body):
    """`options` of a request."""

    place = "options."
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    num_predict: int | None = None
    """-1 and -2: as many tokens as the context holds."""
    stop: Annotated[AsText | Annotated[list[Text], Tag(AS_OTHER)], BY_KIND] | None = None
    repeat_penalty: float | None = None
    """It holds for all tokens of the prompt and the answer."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    cache_salt: str | None = None
    """What is kept of finished requests is shared among those of the same salt. No other server has it."""
    num_speculative_tokens: int | None = None
    """Draft length of this request; 0 is plain decoding. No other server has it."""
    num_ctx: Taken = None
    """It changes nothing: the model is loaded. A prompt that is too long is refused, and never cut off."""


Format = Annotated[
    Annotated[Literal["", "json"], Tag(AS_TEXT)] | Annotated[dict[str, Any], Tag(AS_OTHER)], BY_KIND
]
Think = bool | Literal["low", "medium", "high", "max"]


class Asked(Body):
    """Fields of both generating paths."""

    model: Text | None = None
    stream: bool | None = None
    """True."""
    options: Options | None = None
    format: Format | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    keep_alive: Taken = None


class CalledFunction(Body):
    place = "messages."
    name: Text
    arguments: dict[str, Any]
    index: Taken = None


class ToolCall(Body):
    place = "messages."
    function: CalledFunction
    id: Text | None = None


class Message(Body):
    place = "messages."
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | None = None
    thinking: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: Text | None = None
    """The tool whose result this is."""
    tool_call_id: Text | None = None
    name: Text | None = None
    images: Unsupported = None


class FunctionBody(Body):
    place = "tools."
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    place = "tools."
    type: Literal["function"] = "function"
    function: FunctionBody


class ChatBody(Asked):
    """The body of /api/chat. Without messages it asks for the model to be loaded."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class GenerateBody(Asked):
    """The body of /api/generate. Without a prompt it asks for the model to be loaded."""

    prompt: Text | None = None
    system: Text | None = None
    raw: bool | None = None
    """The prompt is laid out already."""
    suffix: Empty = None
    template: Empty = None
    context: Unsupported = None
    images: Unsupported = None


class ShowBody(Body):
    """Either name of the field."""

    model: Text | None = None
    name: Text | None = None
