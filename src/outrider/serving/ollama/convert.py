"""From a body of Ollama's API to the chat that it asks for."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from outrider.serving.conversion import as_chat, function_tool, tool_call
from outrider.serving.ollama.bodies import Asked, ChatBody, GenerateBody, Message
from outrider.serving.requests import ChatRequest

SAME = (
    "seed",
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "cache_salt",
    "num_speculative_tokens",
)
"""Options that have the same name and meaning in chat."""


def chat_of(body: ChatBody) -> ChatRequest:
    """The chat that a body of /api/chat asks for."""
    tools = [
        function_tool(t.function.name, t.function.description, t.function.parameters, None)
        for t in body.tools or ()
    ]
    return as_chat({**_fields(body), "messages": _messages(body.messages or ()), "tools": tools or None})


def generate_of(body: GenerateBody) -> ChatRequest:
    """The chat that a body of /api/generate asks for, whose prompt is a message of the user's."""
    system = [{"role": "system", "content": body.system}] if body.system else []
    return as_chat({**_fields(body), "messages": [*system, {"role": "user", "content": body.prompt}]})


def stream_of(body: Asked) -> bool:
    return body.stream is not False


def _fields(body: Asked) -> dict[str, Any]:
    options = body.options
    fields: dict[str, Any] = {"stream": stream_of(body), "response_format": _response_format(body)}
    if body.logprobs:
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    match body.think:
        case bool():
            fields["chat_template_kwargs"] = {"enable_thinking": body.think}
        case str():
            fields["reasoning_effort"] = body.think
    if options is None:
        return fields
    limit = options.num_predict
    return {
        **fields,
        **{name: getattr(options, name) for name in SAME},
        "top_k": options.top_k,
        "repetition_penalty": options.repeat_penalty,
        "stop": options.stop or None,
        "max_tokens": limit if limit not in (-1, -2) else None,
    }


def _response_format(body: Asked) -> Any:
    if not body.format:
        return None
    if body.format == "json":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": body.format}}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Calls have no ids in Ollama's form: results are told in the order of the calls, or name their tool."""
    forms: list[dict[str, Any]] = []
    open_calls: deque[tuple[str, str]] = deque()  # id and name of calls whose results have not come
    for number, message in enumerate(messages):
        form: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking:
            form["reasoning_content"] = message.thinking
        if message.tool_calls:
            named = [(c.id or f"call_{number}_{n}", c.function) for n, c in enumerate(message.tool_calls)]
            form["tool_calls"] = [
                tool_call(call_id, f.name, json.dumps(f.arguments, ensure_ascii=False))
                for call_id, f in named
            ]
            open_calls = deque((call_id, f.name) for call_id, f in named)
        if message.role == "tool":
            form["tool_call_id"] = _answered(message, open_calls)
        forms.append(form)
    return forms


def _answered(message: Message, open_calls: deque[tuple[str, str]]) -> str:
    """The id of the call that a result is of."""
    if message.tool_call_id is not None:
        return message.tool_call_id
    name = message.tool_name or message.name
    fitting = next((call for call in open_calls if name in (None, call[1])), None)
    if fitting is None:
        return f"call_{name or 'unknown'}"
    open_calls.remove(fitting)
    return fitting[0]
