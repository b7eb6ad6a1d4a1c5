"""Ollama's client for Python."""

from __future__ import annotations

from typing import Any

from ollama import Client

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import ASK_WEATHER, LIMIT, LIMIT_OF_JSON, MESSAGES, QUESTION, TOOL, Weather

GREEDY = {"temperature": 0, "num_predict": LIMIT}


def test_chat(both: Both) -> None:
    def ask(url: str) -> Any:
        client: Any = Client(host=url)
        whole = client.chat(MODEL, MESSAGES, options=GREEDY)
        lines = list(client.chat(MODEL, MESSAGES, options=GREEDY, stream=True))
        assert "".join(line.message.content for line in lines) == whole.message.content
        generated = client.generate(MODEL, QUESTION, options=GREEDY)
        assert generated.response == whole.message.content
        return whole.message.content, whole.done_reason, whole.eval_count

    assert both.same(ask)[0]


def test_tools(both: Both) -> None:
    """Whether a tool is called is the model's choice here."""

    def ask(url: str) -> Any:
        client: Any = Client(host=url)
        whole = client.chat(MODEL, ASK_WEATHER, tools=[TOOL], options=GREEDY).message
        lines = list(client.chat(MODEL, ASK_WEATHER, tools=[TOOL], options=GREEDY, stream=True))
        calls = [call.function for line in lines for call in line.message.tool_calls or ()]
        assert calls == [call.function for call in whole.tool_calls or ()]
        called = {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {}}}]}
        result = {"role": "tool", "tool_name": "get_weather", "content": "sunny, 20 degrees"}
        answer = client.chat(MODEL, [*ASK_WEATHER, called, result], tools=[TOOL], options=GREEDY)
        return whole.content, calls, answer.message.content

    assert both.same(ask)


def test_a_schema(both: Both) -> None:
    def ask(url: str) -> Any:
        client: Any = Client(host=url)
        options = {**GREEDY, "num_predict": LIMIT_OF_JSON}
        answer = client.chat(MODEL, ASK_WEATHER, format=Weather.model_json_schema(), options=options)
        return Weather.model_validate_json(answer.message.content)

    assert both.same(ask)
