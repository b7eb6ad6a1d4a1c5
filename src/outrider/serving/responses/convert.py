"""From a body of /v1/responses to the chat that it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from outrider.serving.conversion import as_chat, function_tool, tool_call
from outrider.serving.requests import ChatRequest
from outrider.serving.responses.bodies import (
    LOGPROBS,
    Content,
    FunctionCall,
    FunctionCallOutput,
    Item,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedFunction,
    Prompted,
    Reasoning,
    Reference,
    ResponsesRequest,
)


def items_of(body: Prompted) -> list[Item]:
    """What a body brings; text is a message of the user's."""
    if isinstance(body.input, str):
        return [Message(role="user", content=body.input)]
    return list(body.input or ())


def prompt_fields(body: Prompted, conversation: Sequence[Item]) -> dict[str, Any]:
    """The fields of chat that make the prompt. conversation: all its items, without references."""
    head: list[Any] = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    tools = [function_tool(t.name, t.description, t.parameters, t.strict) for t in body.tools or ()]
    return {
        "model": body.model,
        "messages": [*head, *messages_of(conversation)],
        "tools": tools or None,
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _response_format(body),
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
    }


def chat_of(body: ResponsesRequest, conversation: Sequence[Item]) -> ChatRequest:
    """The chat that a body asks for."""
    logprobs = bool(body.top_logprobs) or LOGPROBS in (body.include or ())
    return as_chat(
        {
            **prompt_fields(body, conversation),
            **body.additions(),
            "stream": body.stream,
            "max_completion_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "logprobs": logprobs or None,
            "top_logprobs": body.top_logprobs or None,
            "user": body.user,
        }
    )


def messages_of(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The messages of chat. Reasoning, text and calls of one turn of the model's are one message there."""
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] = {}
    for item in items:
        match item:
            case Reasoning():
                part: dict[str, Any] = {
                    "reasoning_content": "".join(text.text for text in item.content or item.summary or ())
                }
            case Message(role="assistant"):
                part = {"content": _text(item.content)}
            case FunctionCall():
                calls = turn.get("tool_calls", [])
                part = {"tool_calls": [*calls, tool_call(item.call_id, item.name, item.arguments)]}
            case FunctionCallOutput():
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
                turn = {}
                continue
            case Message():
                messages.append({"role": item.role, "content": _text(item.content)})
                turn = {}
                continue
            case Reference():
                raise TypeError("a reference has to be resolved first")
        if not turn or not _follows(turn, part):
            turn = {"role": "assistant", "content": None}
            messages.append(turn)
        turn.update(part)
    return messages


def _follows(turn: dict[str, Any], part: dict[str, Any]) -> bool:
    """Whether a part of the model's goes on with the turn: it thinks, then speaks, then calls."""
    if "reasoning_content" in part:
        return False
    return "tool_calls" in part or (turn["content"] is None and "tool_calls" not in turn)


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool_choice(body: Prompted) -> Any:
    if isinstance(body.tool_choice, NamedFunction):
        return {"type": "function", "function": {"name": body.tool_choice.name}}
    return body.tool_choice


def _response_format(body: Prompted) -> Any:
    wanted = None if body.text is None else body.text.format
    match wanted:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat():
            fields = {"name": wanted.name, "schema": wanted.definition, "strict": wanted.strict}
            return {"type": "json_schema", "json_schema": fields}
        case _:
            return None
