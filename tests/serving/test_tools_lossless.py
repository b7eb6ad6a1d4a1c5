"""200 seeded calls and JSON answers: the same with speculation and without, and all of them parse."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.engine.helpers import load
from tests.serving.harness import running
from tests.serving.tools import HERMES, TOOLS, write

SCHEMAS = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}
NUMBER = 200


def body(number: int) -> dict[str, Any]:
    """A request: every third for JSON, the others for calls, at several temperatures."""
    asked = {
        "messages": [{"role": "user", "content": f"question {number}"}],
        "seed": number,
        "max_tokens": 120,
    }
    asked["temperature"] = (0, 0.7, 1)[number % 3]
    if number % 3 == 1:
        schema = list(SCHEMAS.values())[number % len(SCHEMAS)] | {"additionalProperties": False}
        schema |= {"x-guidance": {"whitespace_flexible": False}}
        return asked | {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        }
    named = {"type": "function", "function": {"name": TOOLS[number % len(TOOLS)]["function"]["name"]}}
    choice = "required" if number % 2 else named
    return asked | {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}


def check(number: int, message: dict[str, Any]) -> None:
    """Raise where an answer does not fit what was asked for."""
    if number % 3 == 1:
        jsonschema_rs.validate(list(SCHEMAS.values())[number % len(SCHEMAS)], json.loads(message["content"]))
        return
    (call,) = message["tool_calls"]
    jsonschema_rs.validate(SCHEMAS[call["function"]["name"]], json.loads(call["function"]["arguments"]))


def test_speculation_changes_no_call_and_no_json(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """`pytest --lossless-model smollm2 ...` asks another model."""
    given = pytestconfig.getoption("--lossless-model")
    target = given or write(tmp_path / "target", HERMES, added=("<tool_call>", "</tool_call>"))
    llm = load(target, "ngram", num_speculative_tokens=3)
    with running(llm) as served, ThreadPoolExecutor(16) as clients:

        def ask(number: int, **fields: Any) -> Any:
            answer = served.post("/v1/chat/completions", speculation_metrics=True, **body(number) | fields)
            assert answer.status_code == 200, answer.text
            return answer.json()

        speculated = list(clients.map(ask, range(NUMBER)))
        plain = list(clients.map(lambda n: ask(n, num_speculative_tokens=0), range(NUMBER)))
    same = sum(one["choices"] == other["choices"] for one, other in zip(speculated, plain, strict=True))
    assert same == NUMBER
    for number, answer in enumerate(speculated):
        check(number, answer["choices"][0]["message"])
    metrics = [answer["metrics"]["speculative_decoding"] for answer in speculated]
    assert sum(each["num_accepted_draft_tokens"] for each in metrics) > NUMBER
    assert sum(each["num_draft_tokens"] - each["num_accepted_draft_tokens"] for each in metrics) > 0
