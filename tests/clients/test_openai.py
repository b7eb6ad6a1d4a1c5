"""OpenAI's client for Python: chat, tools in all modes, streams, Responses, and objects of answers."""

from __future__ import annotations

from typing import Any

import pytest
from openai import LengthFinishReasonError, OpenAI

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import (
    ASK_WEATHER,
    LIMIT,
    LIMIT_OF_JSON,
    MESSAGES,
    OTHER,
    QUESTION,
    TOOL,
    WEATHER,
    Weather,
    arguments_fit,
)

NAMED = {"type": "function", "function": {"name": "get_weather"}}


def client(url: str) -> Any:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def finished(stream: Any) -> Any:
    """The answer of a stream that was read to its end, or to its limit: whether free text ends before goes by
    the processor, and the client raises there once tools are given."""
    try:
        return stream.get_final_completion()
    except LengthFinishReasonError as cut:
        return cut.completion


def calls_of(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_one_of_them_speculates(both: Both) -> None:
    """Or equal answers would say nothing."""
    drafted = []
    for served in (both.speculating, both.speculating, both.plain):  # the second time it knows the answer
        answer = client(served.url).chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=LIMIT,
            extra_body={"speculation_metrics": True},
        )  # fmt: skip
        drafted.append(answer.metrics["speculative_decoding"]["num_accepted_draft_tokens"])
    assert drafted[1] > 0
    assert drafted[2] == 0


@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"temperature": 0.9, "seed": 3}], ids=["greedy", "seeded"]
)
def test_chat(both: Both, fields: dict[str, Any]) -> None:
    def ask(url: str) -> Any:
        chat = client(url).chat.completions
        asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": LIMIT, **fields}
        whole = chat.create(**asked).choices[0]
        streamed = "".join(
            chunk.choices[0].delta.content or "" for chunk in chat.create(**asked, stream=True)
        )
        assert streamed == whole.message.content
        return streamed, whole.finish_reason

    assert both.same(ask)[0]


@pytest.mark.parametrize(
    "choice", ["none", "auto", "required", NAMED], ids=["none", "auto", "required", "named"]
)
@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "one"])
def test_tools(both: Both, choice: Any, parallel: bool) -> None:
    def ask(url: str) -> Any:
        asked = {
            "model": MODEL, "messages": ASK_WEATHER, "tools": [TOOL, OTHER], "tool_choice": choice,
            "parallel_tool_calls": parallel, "temperature": 0, "max_tokens": LIMIT_OF_JSON,
        }  # fmt: skip
        whole = client(url).chat.completions.create(**asked).choices[0]
        with client(url).chat.completions.stream(**asked) as stream:
            streamed = finished(stream).choices[0]
        assert calls_of(streamed.message) == calls_of(whole.message)
        assert (streamed.message.content or "") == (whole.message.content or "")
        assert streamed.finish_reason == whole.finish_reason
        return whole.message.content, calls_of(whole.message), whole.finish_reason

    content, calls, _ = both.same(ask)
    assert all(arguments_fit(*call) for call in calls)
    if choice == "none":
        assert not calls
    elif choice != "auto":
        assert calls
        assert not content
        assert choice == "required" or {name for name, _ in calls} == {"get_weather"}
    if not parallel:
        assert len(calls) <= 1


def test_a_result_goes_back(both: Both) -> None:
    def ask(url: str) -> Any:
        asked: dict[str, Any] = {
            "model": MODEL,
            "tools": [TOOL],
            "temperature": 0,
            "max_tokens": LIMIT_OF_JSON,
        }
        chat = client(url).chat.completions
        called = chat.create(**asked, messages=ASK_WEATHER, tool_choice="required", parallel_tool_calls=False)
        (call,) = called.choices[0].message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 20 degrees"}
        messages = [*ASK_WEATHER, called.choices[0].message, result]
        return chat.create(**asked, messages=messages, tool_choice="none").choices[0].message.content

    assert both.same(ask)


def test_parse(both: Both) -> None:
    def ask(url: str) -> Any:
        chat = client(url).chat.completions.parse(
            model=MODEL,
            messages=ASK_WEATHER,
            response_format=Weather,
            temperature=0,
            max_tokens=LIMIT_OF_JSON,
        )
        response = client(url).responses.parse(
            model=MODEL, input=WEATHER, text_format=Weather, temperature=0, max_output_tokens=LIMIT_OF_JSON
        )
        assert chat.choices[0].message.parsed == response.output_parsed
        return response.output_parsed

    assert isinstance(both.same(ask), Weather)


def test_responses(both: Both) -> None:
    def ask(url: str) -> Any:
        responses = client(url).responses
        first = responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=LIMIT)
        with responses.stream(
            model=MODEL,
            input="And again.",
            temperature=0,
            max_output_tokens=LIMIT,
            previous_response_id=first.id,
        ) as stream:
            events = list(stream)
        return first.output_text, [event.type for event in events][-1], events[-1].response.output_text

    assert all(both.same(ask))


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_tools(both: Both, stream: bool) -> None:
    function = {"type": "function", "strict": True, **TOOL["function"]}

    def ask(url: str) -> Any:
        asked: dict[str, Any] = {
            "model": MODEL,
            "tools": [function],
            "temperature": 0,
            "max_output_tokens": LIMIT_OF_JSON,
        }
        responses = client(url).responses
        required = {**asked, "input": WEATHER, "tool_choice": "required", "parallel_tool_calls": False}
        if stream:
            with responses.stream(**required) as events:
                called = events.get_final_response()
        else:
            called = responses.create(**required)
        (call,) = called.output
        assert arguments_fit(call.name, call.arguments)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 20 degrees"}
        answer = responses.create(**asked, input=[result], previous_response_id=called.id, tool_choice="none")
        return call.name, call.arguments, answer.output_text

    assert both.same(ask)[2]
