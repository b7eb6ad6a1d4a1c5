"""What clients of Ollama send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Tag

from outrider.serving.bodies import AS_OTHER, BY_KIND, AsText, Body, Text
from outrider.serving.requests import Unsupported

Taken = Any
"""A field that clients send, and that cannot change what a model here says."""


def _only(*neutral: object) -> Callable[[object], None]:
    """A validator for what would change the answer, and cannot be done, unless it has one of these values."""

    def check(value: object) -> None:
        if value is not None and value not in neutral:
            raise ValueError(f"this is not supported; leave it out, or give {neutral[0]!r}")

    return check


class Options(Body):
    """`options` of a request. Those of loading a model change nothing here: it is loaded."""

    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    num_predict: int | None = None
    """-1 and -2: as many tokens as the context holds."""
    stop: Annotated[AsText | Annotated[list[Text], Tag(AS_OTHER)], BY_KIND] | None = None
    repeat_penalty: float | None = None
    """Of all tokens of the prompt and the answer."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_speculative_tokens: int | None = None
    """Draft length of this request; 0 is plain decoding. No other server has it."""
    repeat_last_n: Annotated[None, BeforeValidator(_only(-1))] = None
    penalize_newline: Annotated[None, BeforeValidator(_only(True))] = None
    tfs_z: Annotated[None, BeforeValidator(_only(1.0))] = None
    typical_p: Annotated[None, BeforeValidator(_only(1.0))] = None
    mirostat: Annotated[None, BeforeValidator(_only(0))] = None
    mirostat_tau: Taken = None
    mirostat_eta: Taken = None
    num_keep: Taken = None
    num_ctx: Taken = None
    num_batch: Taken = None
    num_gpu: Taken = None
    num_thread: Taken = None
    main_gpu: Taken = None
    numa: Taken = None
    low_vram: Taken = None
    f16_kv: Taken = None
    logits_all: Taken = None
    vocab_only: Taken = None
    use_mmap: Taken = None
    use_mlock: Taken = None
    embedding_only: Taken = None
    draft_num_predict: Taken = None


Format = Annotated[
    Annotated[Literal["", "json"], Tag("(text)")] | Annotated[dict[str, Any], Tag(AS_OTHER)], BY_KIND
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
    truncate: Taken = None
    """Nothing is cut off here: a prompt that is too long is refused."""
    shift: Taken = None


class CalledFunction(Body):
    name: Text
    arguments: dict[str, Any]
    index: Taken = None
    description: Taken = None


class ToolCall(Body):
    function: CalledFunction
    id: Text | None = None
    type: Taken = None


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | None = None
    thinking: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: Text | None = None
    """Of a tool's result."""
    tool_call_id: Text | None = None
    name: Text | None = None
    images: Unsupported = None


class FunctionBody(Body):
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"] = "function"
    function: FunctionBody


class ChatBody(Asked):
    """Of /api/chat. Without messages it asks for the model to be loaded."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class GenerateBody(Asked):
    """Of /api/generate. Without a prompt it asks for the model to be loaded."""

    prompt: Text | None = None
    system: Text | None = None
    raw: bool | None = None
    """The prompt is laid out already."""
    suffix: Annotated[None, BeforeValidator(_only(""))] = None
    template: Annotated[None, BeforeValidator(_only(""))] = None
    context: Unsupported = None
    images: Unsupported = None
    width: Unsupported = None
    height: Unsupported = None
    steps: Unsupported = None


class ShowBody(Body):
    """Either name of the field."""

    model: Text | None = None
    name: Text | None = None
    verbose: Taken = None
    system: Taken = None
    template: Taken = None
    options: Taken = None
