"""The same calls and the same thoughts by every API, streamed or whole, with speculation and without."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest

from tests.engine.helpers import load
from tests.serving.harness import MODEL, PATIENCE, Served, running
from tests.serving.tools import HERMES, MESSAGES, THINKING, TOOLS, write

FUNCTIONS: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
INPUT_SCHEMAS: Any = [
    {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in FUNCTIONS
]
WAYS = list(itertools.product([False, True], [{}, {"num_speculative_tokens": 0}]))
"""Streamed or not, and with speculation or without."""


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = write(tmp_path_factory.mktemp("calling"), HERMES, added=("<tool_call>", "</tool_call>"))
    with running(load(path, "ngram", num_speculative_tokens=3)) as served:
        yield served


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = write(tmp_path_factory.mktemp("thinking"), THINKING, added=("<think>", "</think>"))
    with running(load(path, "ngram", num_speculative_tokens=3)) as served:
        yield served


def of_chat(served: Served, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 300}
    return served.client().chat.completions.create(**asked | fields).choices[0].message


def of_responses(served: Served, *, stream: bool, extra: dict[str, Any], **fields: Any) -> Any:
    asked: Any = {"model": MODEL, "input": MESSAGES, "max_output_tokens": 300, **fields}
    if not stream:
        return served.client().responses.create(**asked, extra_body=extra).output
    *_, last = served.client().responses.create(**asked, extra_body=extra, stream=True)
    return last.response.output


def of_messages(served: Served, *, stream: bool, extra: dict[str, Any], **fields: Any) -> Any:
    client = anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=PATIENCE)
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 300, "extra_body": extra}
    if not stream:
        return client.messages.create(**asked | fields)
    with client.messages.stream(**asked | fields) as events:
        return events.get_final_message()


@pytest.mark.parametrize("seed", range(3))
def test_calls_that_have_to_be(calling: Served, seed: int) -> None:
    fields = {"seed": seed}
    message = of_chat(calling, tools=TOOLS, tool_choice="required", **fields)
    expected = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    assert expected
    for stream, extra in WAYS:
        given: Any = {"stream": stream, "extra": fields | extra}
        items = of_responses(calling, tools=FUNCTIONS, tool_choice="required", **given)
        assert {item.type for item in items} == {"function_call"}
        assert [(item.name, json.loads(item.arguments)) for item in items] == expected
        told = of_messages(calling, tools=INPUT_SCHEMAS, tool_choice={"type": "any"}, **given)
        assert told.stop_reason == "tool_use"
        assert [(block.name, block.input) for block in told.content] == expected


@pytest.mark.parametrize("seed", range(2))
def test_a_named_tool_once(calling: Served, seed: int) -> None:
    fields = {"seed": seed}
    for stream, extra in WAYS:
        given: Any = {"stream": stream, "extra": fields | extra}
        (item,) = of_responses(
            calling, tools=FUNCTIONS, tool_choice={"type": "function", "name": "weather"}, **given
        )
        told = of_messages(
            calling, tools=INPUT_SCHEMAS, tool_choice={"type": "tool", "name": "weather"}, **given
        )
        (block,) = told.content
        assert (item.name, json.loads(item.arguments)) == (block.name, block.input)
        assert block.name == "weather"


def test_calls_and_results_go_back(calling: Served) -> None:
    """All APIs lay out the same prompt for the same conversation."""
    arguments = {"unit": "C", "days": 3}
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": json.dumps(arguments)},
    }
    messages: Any = [
        *MESSAGES,
        {"role": "assistant", "content": "let me see", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    client = calling.client()
    usage = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, max_tokens=1).usage
    assert usage is not None
    items: Any = [
        *MESSAGES,
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": json.dumps(arguments)},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    blocks: Any = [
        *MESSAGES,
        {"role": "assistant", "content": [
            {"type": "text", "text": "let me see"},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": arguments},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]},
    ]  # fmt: skip
    lines = [
        *MESSAGES,
        {"role": "assistant", "content": "let me see",
         "tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]},
        {"role": "tool", "tool_name": "weather", "content": "sunny"},
    ]  # fmt: skip
    counts = [
        client.responses.input_tokens.count(model=MODEL, input=items, tools=FUNCTIONS).input_tokens,
        anthropic.Anthropic(base_url=calling.url, api_key="none")
        .messages.count_tokens(model=MODEL, messages=blocks, tools=INPUT_SCHEMAS)
        .input_tokens,
        calling.post(
            "/api/chat", messages=lines, tools=TOOLS, stream=False, options={"num_predict": 1}
        ).json()["prompt_eval_count"],  # by Ollama's client the schemas would lose what it does not know
    ]
    assert counts == [usage.prompt_tokens] * 3


def test_thoughts(thinking: Served) -> None:
    """Where the template opens them, until they end or the answer does."""
    fields = {"temperature": 0, "max_tokens": 20}
    message = of_chat(thinking, reasoning_effort="high", **fields)
    assert message.reasoning_content
    for stream, extra in WAYS:
        (item, *_) = of_responses(
            thinking, stream=stream, extra={"temperature": 0, **extra}, reasoning={"effort": "high"},
            max_output_tokens=20,
        )  # fmt: skip
        assert item.content[0].text == message.reasoning_content
        told = of_messages(
            thinking, stream=stream, extra={"temperature": 0, **extra}, output_config={"effort": "high"},
            max_tokens=20,
        )  # fmt: skip
        assert told.content[0].thinking == message.reasoning_content
        options = {"temperature": 0, "num_predict": 20, **extra}
        client: Any = ollama.Client(host=thinking.url)
        lines = client.chat(MODEL, MESSAGES, think="high", options=options, stream=stream)
        pieces = list(lines) if stream else [lines]
        assert "".join(piece.message.thinking or "" for piece in pieces) == message.reasoning_content
