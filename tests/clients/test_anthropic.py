"""Anthropic's client for Python."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import Anthropic

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import ASK_WEATHER, LIMIT, LIMIT_OF_JSON, MESSAGES, PARAMETERS, arguments_fit

TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": PARAMETERS}
GREEDY = {"temperature": 0}


def client(url: str) -> Any:
    return Anthropic(base_url=url, api_key="none", max_retries=0)


def blocks(message: Any) -> list[Any]:
    """Without ids."""
    return [block.to_dict() | {"id": None} for block in message.content]


def test_messages(both: Both) -> None:
    def ask(url: str) -> Any:
        asked = {"model": MODEL, "max_tokens": LIMIT, "messages": MESSAGES, "extra_body": GREEDY}
        whole = client(url).messages.create(**asked)
        with client(url).messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        assert blocks(streamed) == blocks(whole)
        return blocks(whole), whole.stop_reason, whole.usage.output_tokens

    assert both.same(ask)[0]


@pytest.mark.parametrize("kind", ["none", "auto", "any", "tool"])
@pytest.mark.parametrize("stream", [False, True])
def test_tools(both: Both, kind: str, stream: bool) -> None:
    choice: dict[str, Any] = {"type": kind}
    if kind == "tool":
        choice["name"] = "get_weather"
    if kind in ("any", "tool"):
        choice["disable_parallel_tool_use"] = True

    limit = LIMIT_OF_JSON if kind in ("any", "tool") else LIMIT

    def ask(url: str) -> Any:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": limit, "tools": [TOOL], "extra_body": GREEDY}
        first = {**asked, "messages": ASK_WEATHER, "tool_choice": choice}
        if stream:
            with client(url).messages.stream(**first) as events:
                message = events.get_final_message()
        else:
            message = client(url).messages.create(**first)
        if message.stop_reason != "tool_use":
            return blocks(message), message.stop_reason
        result = {
            "type": "tool_result",
            "tool_use_id": message.content[-1].id,
            "content": "sunny, 20 degrees",
        }
        messages = [
            *ASK_WEATHER,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result]},
        ]
        answer = client(url).messages.create(**asked, messages=messages, tool_choice={"type": "none"})
        return blocks(message), message.stop_reason, blocks(answer)

    content, reason, *_ = both.same(ask)
    if kind in ("any", "tool"):
        (call,) = content
        assert reason == "tool_use"
        assert arguments_fit(call["name"], call["input"])
    if kind == "none":
        assert reason != "tool_use"
