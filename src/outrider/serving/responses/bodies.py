"""What clients send to /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from outrider.serving.bodies import AS_OTHER, AS_TEXT, BY_KIND, AsText, Body, Text
from outrider.serving.conversion import Additions, by_type
from outrider.serving.requests import Unsupported

Taken = Any
"""A field of an item that is sent back, which a prompt has no place for."""


class TextPart(Body):
    """annotations, logprobs: of an answer that is sent back."""

    place = "input."
    type: Literal["input_text", "output_text"]
    text: Text
    annotations: Taken = None
    logprobs: Taken = None


class RefusalPart(Body):
    place = "input."
    type: Literal["refusal"]
    refusal: Text

    @property
    def text(self) -> str:
        return self.refusal


Part = Annotated[
    Annotated[TextPart, Tag("input_text")]
    | Annotated[TextPart, Tag("output_text")]
    | Annotated[RefusalPart, Tag("refusal")],
    by_type("parts", "input_text, output_text and refusal"),
]
Content = Annotated[AsText | Annotated[list[Part], Tag(AS_OTHER)], BY_KIND]


class Message(Body):
    """A message, or an answer that is sent back."""

    place = "input."
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: Taken = None
    status: Taken = None
    phase: Taken = None


class FunctionCall(Body):
    place = "input."
    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text
    """JSON text."""
    id: Taken = None
    status: Taken = None


class FunctionCallOutput(Body):
    place = "input."
    type: Literal["function_call_output"]
    call_id: Text
    output: Content
    id: Taken = None
    name: Taken = None
    status: Taken = None


class ReasoningText(Body):
    place = "input."
    type: Literal["reasoning_text", "summary_text"]
    text: Text


class Reasoning(Body):
    """What the model thought before an answer."""

    place = "input."
    type: Literal["reasoning"]
    summary: list[ReasoningText] | None = None
    content: list[ReasoningText] | None = None
    id: Taken = None
    status: Taken = None
    encrypted_content: Unsupported = None


class Reference(Body):
    """An item of an answer that the server has kept."""

    place = "input."
    type: Literal["item_reference"]
    id: Text


Item = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")]
    | Annotated[Reference, Tag("item_reference")],
    by_type(
        "items",
        "message, function_call, function_call_output, reasoning and item_reference",
        default="message",
    ),
]
Input = Annotated[AsText | Annotated[list[Item], Tag(AS_OTHER)], BY_KIND]


class FunctionTool(Body):
    place = "tools."
    type: Literal["function"]
    name: Text
    parameters: dict[str, Any] | None = None
    description: Text | None = None
    strict: bool | None = None
    defer_loading: Unsupported = None


class NamedFunction(Body):
    place = "tool_choice."
    type: Literal["function"]
    name: Text


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(AS_TEXT)] | Annotated[NamedFunction, Tag(AS_OTHER)],
    BY_KIND,
]


class TextFormat(Body):
    place = "text.format."
    type: Literal["text"]


class JsonObjectFormat(Body):
    place = "text.format."
    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    place = "text.format."
    type: Literal["json_schema"]
    name: Text
    definition: Annotated[dict[str, Any], Field(alias="schema")]
    description: Text | None = None
    strict: bool | None = None


Format = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class TextSettings(Body):
    place = "text."
    format: Format | None = None


class ReasoningSettings(Body):
    """Reasoning is told as it is: no summary is made of it."""

    place = "reasoning."
    effort: Text | None = None


LOGPROBS = "message.output_text.logprobs"
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""Log-probabilities are there. Reasoning is never encrypted, and of the other tools there is nothing."""


class Prompted(Body):
    """What makes the prompt of a response."""

    model: Text | None = None
    input: Input | None = None
    instructions: Text | None = None
    previous_response_id: Text | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """Nothing is cut off here: a prompt that is too long is refused."""
    conversation: Unsupported = None


class CountRequest(Prompted):
    """Of /v1/responses/input_tokens."""


class ResponsesRequest(Prompted, Additions):
    stream: bool | None = None
    store: bool | None = None
    """Keep the answer, for `previous_response_id` and for GET; true."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[Includable] | None = None
    metadata: dict[str, str] | None = None
    """Is told with the answer."""
    user: Text | None = None
    background: Unsupported = None
    context_management: Unsupported = None
    moderation: Unsupported = None
    max_tool_calls: Taken = None
    """Of tools that a server runs itself."""
