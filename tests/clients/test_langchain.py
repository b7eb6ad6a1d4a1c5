"""LangChain's ChatOpenAI, on chat and on Responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import (
    LIMIT,
    LIMIT_OF_JSON,
    OTHER,
    QUESTION,
    TOOL,
    WEATHER,
    Weather,
    arguments_fit,
)

langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed: make clients")


def model(url: str, **options: Any) -> Any:
    defaults: dict[str, Any] = {"temperature": 0, "max_tokens": LIMIT_OF_JSON, "max_retries": 0}
    return langchain.ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="none", **defaults | options)


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_invoke_and_stream(both: Both, responses: bool) -> None:
    def ask(url: str) -> Any:
        llm = model(url, use_responses_api=responses, max_tokens=LIMIT)
        whole = llm.invoke(QUESTION).text
        assert "".join(chunk.text for chunk in llm.stream(QUESTION)) == whole
        return whole

    assert both.same(ask)


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
@pytest.mark.parametrize("choice", ["any", "get_weather", "auto", "none"])
def test_bind_tools(both: Both, responses: bool, choice: str) -> None:
    def ask(url: str) -> Any:
        llm = model(url, use_responses_api=responses)
        bound = llm.bind_tools([TOOL, OTHER], tool_choice=choice, parallel_tool_calls=False)
        answer = bound.invoke(WEATHER)
        calls = [(call["name"], call["args"]) for call in answer.tool_calls]
        chunks = list(bound.stream(WEATHER))
        streamed = chunks[0]
        for chunk in chunks[1:]:
            streamed += chunk
        assert [(call["name"], call["args"]) for call in streamed.tool_calls] == calls
        assert not answer.invalid_tool_calls
        return calls, answer.text

    calls, _ = both.same(ask)
    assert all(arguments_fit(*call) for call in calls)
    if choice in ("any", "get_weather"):
        assert len(calls) == 1


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_with_structured_output(both: Both, method: str) -> None:
    def ask(url: str) -> Any:
        return model(url).with_structured_output(Weather, method=method).invoke(WEATHER)

    assert isinstance(both.same(ask), Weather)
