"""From a body of /v1/messages to the chat that it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from outrider.errors import ConfigError
from outrider.serving.conversion import as_chat, function_tool, tool_call
from outrider.serving.messages.bodies import (
    CountRequest,
    Message,
    MessagesRequest,
    TextBlock,
    Texts,
    Thinking,
    ThinkingSettings,
    ToolResult,
    ToolUse,
)
from outrider.serving.requests import ChatRequest

THINKS = {"enabled": True, "disabled": False}
"""What a template is told; with `adaptive` the model is left to itself."""


def prompt_fields(body: CountRequest) -> dict[str, Any]:
    """The fields of chat that make the prompt. Raises ConfigError."""
    system = [] if body.system is None else [{"role": "system", "content": _text(body.system)}]
    config, choice = body.output_config, body.tool_choice
    tools = [function_tool(t.name, t.description, t.input_schema, t.strict) for t in body.tools or ()]
    return {
        "model": body.model,
        "messages": [*system, *(m for message in body.messages for m in _messages_of(message))],
        "tools": tools or None,
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": False if choice is not None and choice.disable_parallel_tool_use else None,
        "response_format": _response_format(body),
        "reasoning_effort": None if config is None else config.effort,
        "chat_template_kwargs": {**_thinking(body.thinking), **(body.chat_template_kwargs or {})} or None,
    }


def chat_of(body: MessagesRequest) -> ChatRequest:
    """The chat that a body asks for. Raises ConfigError."""
    return as_chat(
        {
            **body.additions(),
            **prompt_fields(body),
            "stream": body.stream,
            "max_tokens": body.max_tokens,
            "stop": body.stop_sequences or None,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "user": None if body.metadata is None else body.metadata.user_id,
        }
    )


def _messages_of(message: Message) -> Iterable[dict[str, Any]]:
    """One message of Anthropic's is several of chat's where it holds results of tools."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case TextBlock():
                texts.append(block.text)
            case Thinking():
                thoughts.append(block.thinking)
            case ToolUse():
                calls.append(tool_call(block.id, block.name, json.dumps(block.input, ensure_ascii=False)))
            case ToolResult():
                content = _text(block.content)
                said = f"Error: {content}" if block.is_error else content
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": said}
    form: dict[str, Any] = {"role": message.role, "content": "".join(texts) if texts else None}
    if thoughts:
        form["reasoning_content"] = "".join(thoughts)
    if calls:
        form["tool_calls"] = calls
    if texts or thoughts or calls:
        yield form


def _text(texts: Texts) -> str:
    return texts if isinstance(texts, str) else "\n".join(block.text for block in texts)


def _tool_choice(body: CountRequest) -> Any:
    choice = body.tool_choice
    if choice is None:
        return None
    if (choice.type == "tool") != (choice.name is not None):
        raise ConfigError("tool_choice has a name with the type 'tool', and with no other", "tool_choice")
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


def _response_format(body: CountRequest) -> Any:
    wanted = None if body.output_config is None else body.output_config.format
    if wanted is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.definition}}


def _thinking(settings: ThinkingSettings | None) -> dict[str, Any]:
    kind = None if settings is None else settings.type
    return {"enable_thinking": THINKS[kind]} if kind in THINKS else {}
