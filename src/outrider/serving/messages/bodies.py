"""What clients send to /v1/messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from outrider.serving.bodies import AS_OTHER, BY_KIND, AsText, Body, Text
from outrider.serving.conversion import Additions, by_type
from outrider.serving.requests import Unsupported

Taken = Any
"""A field of a block that is sent back, which a prompt has no place for."""


class TextBlock(Body):
    place = "messages."
    type: Literal["text"]
    text: Text


class ToolUse(Body):
    """A call of a tool that the model made."""

    place = "messages."
    type: Literal["tool_use"]
    id: Text
    name: Text
    input: dict[str, Any]


class ToolResult(Body):
    place = "messages."
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Annotated[AsText | Annotated[list[TextBlock], Tag(AS_OTHER)], BY_KIND] = ""
    is_error: bool | None = None
    """Is said in front of the content."""


class Thinking(Body):
    """signature: is empty here, and not looked at."""

    place = "messages."
    type: Literal["thinking"]
    thinking: Text
    signature: Taken = None


class RedactedThinking(Body):
    """A thought of another model, which no one here can read: it is left out."""

    place = "messages."
    type: Literal["redacted_thinking"]
    data: Taken


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUse, Tag("tool_use")]
    | Annotated[ToolResult, Tag("tool_result")]
    | Annotated[Thinking, Tag("thinking")]
    | Annotated[RedactedThinking, Tag("redacted_thinking")],
    by_type("blocks", "text, tool_use, tool_result, thinking and redacted_thinking"),
]
Texts = Annotated[AsText | Annotated[list[TextBlock], Tag(AS_OTHER)], BY_KIND]


class Message(Body):
    place = "messages."
    role: Literal["user", "assistant", "system"]
    content: Annotated[AsText | Annotated[list[Block], Tag(AS_OTHER)], BY_KIND]


class Tool(Body):
    place = "tools."
    type: Literal["custom"] | None = None
    name: Text
    input_schema: dict[str, Any]
    description: Text | None = None
    strict: bool | None = None
    input_examples: Unsupported = None
    defer_loading: Unsupported = None


class ToolChoice(Body):
    place = "tool_choice."
    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    """With the type `tool`."""
    disable_parallel_tool_use: bool | None = None


class ThinkingSettings(Body):
    """A model here thinks for as long as it does: there is no budget."""

    place = "thinking."
    type: Literal["enabled", "disabled", "adaptive"]


class OutputFormat(Body):
    place = "output_config.format."
    type: Literal["json_schema"]
    definition: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    place = "output_config."
    effort: Text | None = None
    format: OutputFormat | None = None


class Metadata(Body):
    place = "metadata."
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
    container: Unsupported = None
