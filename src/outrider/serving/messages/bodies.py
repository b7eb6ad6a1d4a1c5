"""What clients send to /v1/messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from outrider.serving.bodies import AS_OTHER, BY_KIND, AsText, Body, Text
from outrider.serving.conversion import Additions
from outrider.serving.requests import Unsupported

Taken = Any
"""A field that clients send, and that cannot change what a model here says."""


class TextBlock(Body):
    type: Literal["text"]
    text: Text
    cache_control: Taken = None
    citations: Unsupported = None


class ToolUse(Body):
    """A call of a tool that the model made."""

    type: Literal["tool_use"]
    id: Text
    name: Text
    input: dict[str, Any]
    cache_control: Taken = None
    caller: Taken = None


class ToolResult(Body):
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Annotated[AsText | Annotated[list[TextBlock], Tag(AS_OTHER)], BY_KIND] = ""
    is_error: bool | None = None
    """Is said in front of the content."""
    cache_control: Taken = None


class Thinking(Body):
    """signature: is empty here, and not looked at."""

    type: Literal["thinking"]
    thinking: Text
    signature: Taken = None


class RedactedThinking(Body):
    """Of another model, which no one here can read: it is left out."""

    type: Literal["redacted_thinking"]
    data: Taken


def _kind_of_block(value: object) -> str:
    return str(value.get("type") if isinstance(value, dict) else getattr(value, "type", None))


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUse, Tag("tool_use")]
    | Annotated[ToolResult, Tag("tool_result")]
    | Annotated[Thinking, Tag("thinking")]
    | Annotated[RedactedThinking, Tag("redacted_thinking")],
    Discriminator(
        _kind_of_block,
        custom_error_type="unsupported_block",
        custom_error_message="blocks are text, tool_use, tool_result, thinking and redacted_thinking here",
    ),
]
Texts = Annotated[AsText | Annotated[list[TextBlock], Tag(AS_OTHER)], BY_KIND]


class Message(Body):
    role: Literal["user", "assistant", "system"]
    content: Annotated[AsText | Annotated[list[Block], Tag(AS_OTHER)], BY_KIND]


class Tool(Body):
    type: Literal["custom"] | None = None
    name: Text
    input_schema: dict[str, Any]
    description: Text | None = None
    strict: bool | None = None
    cache_control: Taken = None
    eager_input_streaming: Taken = None
    input_examples: Unsupported = None
    defer_loading: Unsupported = None
    allowed_callers: Taken = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    """With the type `tool`."""
    disable_parallel_tool_use: bool | None = None


class ThinkingSettings(Body):
    """budget_tokens: of the model's own reckoning elsewhere; here it thinks as long as it does."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Taken = None
    display: Taken = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    definition: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    effort: Text | None = None
    format: OutputFormat | None = None


class Metadata(Body):
    user_id: Text | None = None


class CountRequest(Body):
    """What makes the prompt of a message: all that /v1/messages/count_tokens takes."""

    model: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    system: Texts | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingSettings | None = None
    output_config: OutputConfig | None = None
    cache_control: Taken = None
    mcp_servers: Unsupported = None
    context_management: Unsupported = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesRequest(CountRequest, Additions):
    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[Text] | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: Metadata | None = None
    service_tier: Taken = None
    inference_geo: Taken = None
    container: Unsupported = None
