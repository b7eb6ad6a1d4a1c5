"""Reasoning over HTTP: told apart from the answer, whole and streamed, and turned on and off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.engine.helpers import load
from tests.serving.harness import MODEL, Served, running
from tests.serving.tools import (
    HARMONY,
    HARMONY_TOKENS,
    MESSAGES,
    THINKING,
    TOOLS,
    check_call,
    in_one,
    streamed,
    write,
)

OFF = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Think tags that are tokens, as Qwen3's are."""
    path = write(tmp_path_factory.mktemp("thinking"), THINKING, added=("<think>", "</think>", "<tool_call>"))
    with running(load(path, "ngram", num_speculative_tokens=3)) as served:
        yield served


@pytest.fixture(scope="module")
def harmony(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = write(tmp_path_factory.mktemp("harmony"), HARMONY, *HARMONY_TOKENS)
    with running(load(path, "ngram", num_speculative_tokens=3)) as served:
        yield served


def ask(served: Served, *, stream: bool = False, **fields: Any) -> Any:
    given: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "seed": 3}
    answer = served.client().chat.completions.create(**given | fields, stream=stream)
    return streamed(answer) if stream else answer


def push(served: Served, **biases: float) -> dict[str, float]:
    """Likelier tokens, by name."""
    tokenizer = served.llm.tokenizer
    names = {
        "space": "Ġ",
        "final": "f",
        "analysis": "a",
        "open": "<think>",
        "close": "</think>",
        "end": tokenizer.eos_token,
        "stop": "<|end|>",
    }
    return {str(tokenizer.token_to_id(names[name] or "")): bias for name, bias in biases.items()}


@pytest.mark.parametrize("effort", [None, "high"])
def test_thinking(thinking: Served, effort: Any) -> None:
    """Whether the model opens its reasoning or the template has done so."""
    bias = push(thinking, close=8) | (push(thinking, open=100) if effort is None else {})
    fields: dict[str, Any] = {"logit_bias": bias, **({} if effort is None else {"reasoning_effort": effort})}
    fields["extra_body"] = {"structured_outputs": {"regex": "[a-z]{1,9}"}}  # a tag may not follow another
    reasoned = 0
    for seed in range(4):
        told = in_one(ask(thinking, seed=seed, **fields))
        assert ask(thinking, stream=True, seed=seed, **fields) == told
        assert "think>" not in told["content"] + told["reasoning"]
        assert told["content"].isalpha()
        reasoned += bool(told["reasoning"])
    assert reasoned


def test_reasoning_has_both_names(thinking: Served) -> None:
    fields: dict[str, Any] = {"reasoning_effort": "high", "max_tokens": 9, "messages": MESSAGES, "seed": 3}
    message = thinking.post("/v1/chat/completions", **fields).json()["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] != ""
    assert message["content"] == ""
    sent_back = [*MESSAGES, message, *MESSAGES]
    assert thinking.post("/v1/chat/completions", messages=sent_back, max_tokens=1).status_code == 200


def test_no_thinking(thinking: Served) -> None:
    """The template closes the reasoning, and all is the answer."""
    told = in_one(ask(thinking, extra_body=OFF, max_tokens=20))
    assert told["content"]
    assert not told["reasoning"]


@pytest.mark.parametrize("served", ["thinking", "harmony"])
def test_a_schema_binds_the_answer_and_not_the_reasoning(served: str, request: pytest.FixtureRequest) -> None:
    model: Served = request.getfixturevalue(served)
    schema: dict[str, Any] = {"properties": {"a": {"enum": [1, 22]}}, "required": ["a"], "type": "object"}
    schema |= {"additionalProperties": False, "x-guidance": {"whitespace_flexible": False}}
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": schema},
    }
    bias = push(model, close=8) if served == "thinking" else push(model, stop=8, space=5, analysis=4, final=4)
    fields: dict[str, Any] = {"response_format": form, "logit_bias": bias}
    reasoned = 0
    for seed in range(6):
        if served == "thinking":
            fields["reasoning_effort"] = "high"
        told = in_one(ask(model, seed=seed, **fields))
        assert ask(model, stream=True, seed=seed, **fields) == told
        content = told["content"].split("\n\n")[-1]
        assert told["reason"] == "stop"
        assert json.loads(content) in ({"a": 1}, {"a": 22})
        reasoned += bool(told["reasoning"])
    assert reasoned


@pytest.mark.parametrize("served", ["thinking", "harmony"])
def test_calls_after_reasoning(served: str, request: pytest.FixtureRequest) -> None:
    model: Served = request.getfixturevalue(served)
    bias = (
        push(model, close=8, end=5)
        if served == "thinking"
        else push(model, stop=8, space=5, analysis=4, final=4)
    )
    fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    for seed in range(6):
        given = fields | {"seed": seed, "logit_bias": bias}
        answer = ask(model, **given)
        (call,) = answer.choices[0].message.tool_calls
        check_call(call)
        told = in_one(answer)
        assert ask(model, stream=True, **given) == told
        assert in_one(ask(model, extra_body={"num_speculative_tokens": 0}, **given)) == told
        assert "<|" not in told["content"] + told["reasoning"]


def test_harmony_without_tools_is_read_too(harmony: Served) -> None:
    """Nothing binds it then; special tokens are left out of what is told."""
    for seed in range(4):
        told = in_one(ask(harmony, seed=seed, max_tokens=60))
        assert ask(harmony, seed=seed, max_tokens=60, stream=True) == told
        assert "<|" not in told["content"]


def test_a_template_without_the_variable(harmony: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="reasoning_effort is not known to the model's chat"):
        ask(harmony, reasoning_effort="high")
    assert ask(harmony, extra_body=OFF, max_tokens=2).choices
