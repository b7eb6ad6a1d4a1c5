"""Models whose templates lay out no tools are told of them in text, and parsers can be named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM
from outrider.errors import ConfigError
from outrider.models.tool_layout import in_text
from outrider.serving.service import Service
from outrider.serving.settings import ServerConfig
from tests.engine.helpers import load
from tests.serving.harness import MODEL, Served, running
from tests.serving.tools import HERMES, MESSAGES, TOOLS, check_call, tool, write

CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": {"x": [1, None]}}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "2"}]},
    {"role": "user", "content": "so?"},
]


def test_a_conversation_in_text() -> None:
    system, user, assistant, results, last = in_text(TALK, TOOLS)
    assert system["content"].startswith("Be brief.\n\n# Tools")
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in system["content"]
    assert (user, last) == (TALK[1], TALK[5])
    call = '<tool_call>\n{"name": "now", "arguments": {"x": [1, null]}}\n</tool_call>'
    assert assistant == {"role": "assistant", "content": f"Wait.\n{call}\n{call}"}
    both = "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
    assert results == {"role": "user", "content": both}
    assert in_text(MESSAGES, []) == MESSAGES
    assert [message["role"] for message in in_text(MESSAGES, TOOLS)] == ["system", "user"]


def test_templates_without_tools_get_them_in_text(target: str, tmp_path: Path) -> None:
    plain, hermes = LLM(target, device="cpu"), load(write(tmp_path / "hermes", HERMES))
    assert plain.chat_text(TALK[:2], tools=TOOLS) == plain.chat_text(in_text(TALK[:2], TOOLS))
    assert "# Tools" not in hermes.chat_text(TALK[:2], tools=TOOLS)
    assert "weather" in hermes.chat_text(TALK[:2], tools=TOOLS)
    assert hermes.chat_prompt(MESSAGES, chat_template_kwargs={"messages_": 1}) == hermes.chat_prompt(MESSAGES)


def test_a_server_of_such_a_model(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and calls are bound and read as anybody's; their results are laid out too."""
    fields: dict[str, Any] = {"model": MODEL, "tools": TOOLS, "seed": 5, "max_tokens": 300}
    forced = fields | {"tool_choice": "required", "parallel_tool_calls": False}
    with running(load(target)) as served, caplog.at_level(logging.WARNING):
        chat: Any = served.client().chat.completions.create
        answer = [chat(messages=MESSAGES, **forced) for _ in range(2)][-1]
        message = answer.choices[0].message
        check_call(message.tool_calls[0])
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "42"}
        again = chat(messages=[*MESSAGES, message.model_dump(), result], **fields | {"max_tokens": 1})
        without = chat(messages=MESSAGES, **fields | {"max_tokens": 1})
    assert again.usage.prompt_tokens > without.usage.prompt_tokens + 40
    assert sum("lays out no tools" in record.message for record in caplog.records) == 1


def test_a_parser_that_the_template_does_not_fit(target: str) -> None:
    with running(load(target), tool_call_parser="mistral") as served:
        answer = served.post("/v1/chat/completions", messages=MESSAGES, tools=TOOLS)
        assert "tool_call_parser = 'mistral' needs a chat template that lays out tools" in answer.text
        assert served.post("/v1/chat/completions", messages=MESSAGES, max_tokens=1).status_code == 200


def test_tokenize_lays_tools_out(served: Served) -> None:
    plain, tools = (
        served.post("/tokenize", messages=MESSAGES, **fields).json() for fields in ({}, {"tools": TOOLS})
    )
    asked = served.post("/v1/chat/completions", messages=MESSAGES, tools=TOOLS, max_tokens=1, seed=1).json()
    assert plain["count"] < tools["count"] == asked["usage"]["prompt_tokens"]


def test_parsers_by_name(tmp_path: Path) -> None:
    """Mistral's form for a template that shows none of it."""
    path = write(tmp_path / "model", HERMES.replace("<tool_call>", "<call>"), "[TOOL_CALLS]")
    with running(load(path), tool_call_parser="mistral") as served:
        fields: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "tools": [tool("now")], "seed": 1}
        fields |= {"tool_choice": "required", "parallel_tool_calls": False}
        answer = served.client().chat.completions.create(**fields, extra_body={"return_token_ids": True})
        check_call(answer.choices[0].message.tool_calls[0])
        assert "[TOOL_CALLS]" in served.service.prompts.text_of(answer.choices[0].token_ids)
    for option in ("tool_call_parser", "reasoning_parser"):
        config: dict[str, Any] = {"model_name": MODEL, option: "mistrals"}
        with pytest.raises(ConfigError, match=f"{option} = 'mistrals' is not known; give one of "):
            Service(served.service.model, served.service.engine, ServerConfig(**config))
