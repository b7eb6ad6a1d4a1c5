"""Anthropic's own client drives /v1/messages, and reads what chat says to the same conversation."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from outrider.serving.messages.blocks import Blocks
from outrider.serving.messages.bodies import MessagesRequest
from outrider.serving.messages.convert import chat_of
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning
from tests.engine.helpers import load
from tests.serving.harness import MODEL, PATIENCE, Served, running, said

PLAIN = {"num_speculative_tokens": 0}
SYSTEM: Any = {"role": "system", "content": "be brief"}
USER: Any = {"role": "user", "content": "the end"}


def client(served: Served, key: str = "none") -> Any:  # its blocks are of many kinds
    return anthropic.Anthropic(base_url=served.url, api_key=key, max_retries=0, timeout=PATIENCE)


def ask(served: Served, *, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    defaults: dict[str, Any] = {"model": MODEL, "max_tokens": 24, "messages": [USER]}
    return client(served).messages.create(**defaults | fields, extra_body={"temperature": 0} | (extra or {}))


@pytest.mark.parametrize("extra", [{}, PLAIN], ids=["speculation", "plain"])
@pytest.mark.parametrize(
    "given",
    [
        {"system": "be brief"},
        {"system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "the end"}]}]},
    ],
    ids=["text", "blocks", "messages"],
)
def test_as_chat_says(served: Served, given: dict[str, Any], extra: dict[str, Any]) -> None:
    message = ask(served, extra=extra, **given)
    assert message.content[0].text == said(served, [SYSTEM, USER])
    assert message.type == "message"
    assert message.stop_reason in ("end_turn", "max_tokens")


@pytest.mark.parametrize("extra", [{}, PLAIN], ids=["speculation", "plain"])
def test_a_stream_is_the_answer_in_pieces(served: Served, extra: dict[str, Any]) -> None:
    whole = ask(served, extra=extra)
    kinds = [event.type for event in ask(served, extra=extra, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]  # the client passes no ping on
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    with client(served).messages.stream(
        model=MODEL,
        max_tokens=24,
        messages=[USER],
        extra_body={"temperature": 0} | extra,
    ) as stream:
        texts = "".join(stream.text_stream)
        told = stream.get_final_message()
    assert texts == told.content[0].text == whole.content[0].text
    assert (told.stop_reason, told.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    assert told.usage.output_tokens == whole.usage.output_tokens
    cached = [usage.cache_read_input_tokens + usage.input_tokens for usage in (told.usage, whole.usage)]
    assert cached[0] == cached[1]


def test_a_ping_follows_the_start(served: Served) -> None:
    body = {"model": MODEL, "max_tokens": 3, "messages": [USER], "stream": True}
    lines = served.post("/v1/messages", **body).text.split("\n\n")
    assert lines[1] == 'event: ping\ndata: {"type":"ping"}'


def test_why_a_message_ends(served: Served) -> None:
    whole = said(served, [USER])
    assert ask(served, max_tokens=3).stop_reason == "max_tokens"
    message = ask(served, stop_sequences=[whole[4:6]])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", whole[4:6])
    assert message.content[0].text == whole[: whole.index(whole[4:6])]
    asked: Any = {"max_tokens": 400, "temperature": 1}
    answers = (
        (seed, served.client().chat.completions.create(model=MODEL, messages=[USER], seed=seed, **asked))
        for seed in range(20)
    )
    seed = next(seed for seed, answer in answers if answer.choices[0].finish_reason == "stop")
    assert ask(served, extra={"temperature": 1, "seed": seed}, max_tokens=400).stop_reason == "end_turn"


def test_counting(served: Served) -> None:
    counted = client(served).messages.count_tokens(model=MODEL, system="be brief", messages=[USER])
    usage = ask(served, system="be brief").usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}},
    "required": ["a"],
    "additionalProperties": False,
}


def test_a_form(served: Served) -> None:
    message = ask(served, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert json.loads(message.content[0].text)["a"] in (1, 2)


def test_errors_have_anthropics_form(served: Served) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens = 0") as invalid:
        ask(served, max_tokens=0)
    body: Any = invalid.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        ask(served, model="other")
    assert served.http.get("/v1/messages").json()["error"]["message"] == "Method Not Allowed"


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
def test_keys(target: str, name: str) -> None:
    """Anthropic's header and OpenAI's are both taken, by every path."""
    with running(load(target), api_keys=["secret"]) as served:
        with pytest.raises(anthropic.AuthenticationError, match="API key"):
            ask(served)
        answer = client(served, "secret").messages.create(model=MODEL, max_tokens=2, messages=[USER])
        assert answer.usage.output_tokens == 2
        key = "secret" if name == "x-api-key" else "Bearer secret"
        assert served.http.get("/v1/models", headers={name: key}).status_code == 200
        assert served.http.get("/v1/models", headers={name: "other"}).status_code == 401


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice needs tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice has a name with the type 'tool'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "blocks of this type are not supported; they are text, tool_use,",
        ),
        ({"container": "c"}, "container = 'c'"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"top_p": 2.0}, "top_p = 2"),
    ],
)
def test_refusals(served: Served, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=reason):
        ask(served, extra=fields)


def test_what_cannot_change_an_answer_is_taken_and_named(served: Served) -> None:
    body = {"model": MODEL, "max_tokens": 3, "temperature": 0, "messages": [USER]}
    plain = served.post("/v1/messages", **body)
    cached = [{"type": "text", "text": "the end", "cache_control": {"type": "ephemeral"}}]
    answer = served.post(
        "/v1/messages",
        **body | {"messages": [{"role": "user", "content": cached}]},
        service_tier="auto",
        thinking={"type": "adaptive", "budget_tokens": 1024},
    )
    assert answer.json()["content"] == plain.json()["content"]
    ignored = set(answer.headers["x-outrider-ignored"].split(", "))
    assert ignored == {"messages.cache_control", "service_tier", "thinking.budget_tokens"}
    assert "x-outrider-ignored" not in plain.headers


def chat_fields(**fields: Any) -> Any:
    body = MessagesRequest.model_validate({"max_tokens": 5, "messages": [USER]} | fields)
    return chat_of(body).model_dump(exclude_none=True)


TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any", "disable_parallel_tool_use": True}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_tools_become_those_of_chat(choice: dict[str, Any], wanted: Any) -> None:
    fields = chat_fields(tools=[TOOL], tool_choice=choice, thinking={"type": "disabled"})
    function = {"name": "weather", "description": "d", "parameters": TOOL["input_schema"]}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == wanted
    assert fields.get("parallel_tool_calls") is (False if "disable_parallel_tool_use" in choice else None)
    assert fields["chat_template_kwargs"] == {"enable_thinking": False}


def test_blocks_become_messages_of_chat() -> None:
    fields = chat_fields(
        messages=[
            USER,
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "redacted_thinking", "data": "?"},
                {"type": "text", "text": "I look"},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}],
                 "is_error": True},
                {"type": "text", "text": "and now?"},
            ]},
        ]
    )  # fmt: skip
    _, turn, result, question = fields["messages"]
    assert turn["reasoning_content"] == "hm"
    assert turn["content"] == "I look"
    (call,) = turn["tool_calls"]
    assert (call["id"], call["function"]) == ("t1", {"name": "weather", "arguments": '{"a": 1}'})
    assert result == {"role": "tool", "tool_call_id": "t1", "content": "Error: rain"}
    assert question == {"role": "user", "content": "and now?"}


EVENTS: list[Event] = [
    Reasoning("let "), Reasoning("me see"), Content("I "), Content("look"), CallBegins(0, "c0", "weather"),
    CallArguments(0, '{"a"'), CallArguments(0, ": 1}"),
    CallBegins(1, "c1", "weather"), CallArguments(1, '{"b": [1, 2'),
]  # fmt: skip


def test_blocks_of_every_kind() -> None:
    blocks = Blocks()
    forms = [*blocks.feed(EVENTS), *blocks.close()]
    assert [block["type"] for block in blocks.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks.content[2]["input"] == {"a": 1}
    assert blocks.content[3]["input"] == {"b": [1, 2]}  # it was cut off
    assert [form["index"] for form in forms if form["type"] == "content_block_start"] == [0, 1, 2, 3]
    assert [form["index"] for form in forms if form["type"] == "content_block_stop"] == [0, 1, 2, 3]
    pieces = [form["delta"]["partial_json"] for form in forms if form["index"] == 2 and "delta" in form]
    assert pieces == ['{"a"', ": 1}"]
    deltas = [form["delta"]["type"] for form in forms if form["index"] == 0 and "delta" in form]
    assert deltas == ["thinking_delta", "thinking_delta", "signature_delta"]
