"""OpenAI's own client drives /v1/responses, and reads what chat says to the same conversation."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel, Field

from outrider.serving.errors import ApiError
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning
from outrider.serving.responses.bodies import ResponsesRequest
from outrider.serving.responses.convert import chat_of, items_of
from outrider.serving.responses.output import Output
from outrider.serving.responses.store import ResponseStore
from tests.serving.harness import MODEL, Served, said

PLAIN = {"num_speculative_tokens": 0}
BRIEF = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the end"}]


def respond(served: Served, *, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    defaults: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
    return served.client().responses.create(**defaults | fields, extra_body=extra)


@pytest.mark.parametrize("extra", [{}, PLAIN], ids=["speculation", "plain"])
@pytest.mark.parametrize(
    "given",
    [
        {"instructions": "be brief", "input": "the end"},
        {"input": BRIEF},
        {"instructions": "be brief", "input": [{"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "the "}, {"type": "input_text", "text": "end"}]}]},
    ],
    ids=["text", "messages", "parts"],
)  # fmt: skip
def test_as_chat_says(served: Served, given: dict[str, Any], extra: dict[str, Any]) -> None:
    response = respond(served, extra=extra, **given)
    assert response.output_text == said(served, BRIEF)
    assert Response.model_validate(response.to_dict()).status == response.status
    assert response.usage.input_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_the_length_of_an_answer(served: Served) -> None:
    response = respond(served, input="the end", max_output_tokens=3, extra={"seed": 1})
    assert response.status == response.output[0].status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 3


def unnamed(response: Response) -> dict[str, Any]:
    """A response without what is another one each time."""
    form: dict[str, Any] = response.to_dict()
    del form["id"], form["created_at"], form["output"][0]["id"]
    del form["usage"]["input_tokens_details"]  # the second finds its prompt in the cache
    form["output"][0]["content"][0].pop("parsed", None)
    return form


@pytest.mark.parametrize("extra", [{}, PLAIN], ids=["speculation", "plain"])
def test_a_stream_is_the_answer_in_pieces(served: Served, extra: dict[str, Any]) -> None:
    whole = respond(served, input="the end", extra=extra)
    with served.client().responses.stream(
        model=MODEL, input="the end", temperature=0, max_output_tokens=24, extra_body=extra
    ) as stream:
        events = list(stream)
    last: Any = events[-1]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        f"response.{whole.status}",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
        whole.output_text
    )
    assert unnamed(last.response) == unnamed(whole)


class Verdict(BaseModel):
    kind: str = Field(max_length=3)
    certain: bool


@pytest.mark.parametrize("extra", [{}, PLAIN], ids=["speculation", "plain"])
def test_parsed_by_the_client(served: Served, extra: dict[str, Any]) -> None:
    response = served.client().responses.parse(
        model=MODEL, input="hi", text_format=Verdict, temperature=0, max_output_tokens=80, extra_body=extra
    )
    assert isinstance(response.output_parsed, Verdict)


def test_going_on(served: Served) -> None:
    """The server lays out the whole conversation; instructions are those of the request alone."""
    client = served.client()
    first = respond(served, instructions="shout", input="the end")
    second = respond(served, instructions="be brief", input="on", previous_response_id=first.id)
    assert second.output_text == said(
        served,
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "the end"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "on"},
        ],
    )
    third = respond(served, input="and", previous_response_id=second.id)
    by_hand = [
        {"role": "user", "content": "the end"},
        *first.output,
        {"role": "user", "content": "on"},
        *second.output,
        {"role": "user", "content": "and"},
    ]
    assert respond(served, input=by_hand).output_text == third.output_text
    referred = [{"type": "item_reference", "id": item.id} for item in second.output]
    by_reference = [*by_hand[:-2], *referred, by_hand[-1]]
    assert respond(served, input=by_reference).output_text == third.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    for ask in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
        lambda: respond(served, input="x", previous_response_id=first.id),
    ):
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            ask()


def test_what_is_not_stored(served: Served) -> None:
    response = respond(served, input="hi", store=False)
    assert response.store is False
    with pytest.raises(openai.NotFoundError):
        served.client().responses.retrieve(response.id)


def test_a_streamed_response_is_stored(served: Served) -> None:
    events = list(respond(served, input="hi", stream=True))
    kept = served.client().responses.retrieve(events[-1].response.id)
    assert kept.output_text == events[-1].response.output_text


def test_counting(served: Served) -> None:
    response = respond(served, instructions="be brief", input="the end")
    counted = served.client().responses.input_tokens.count(
        model=MODEL, instructions="be brief", input="the end"
    )
    assert counted.input_tokens == response.usage.input_tokens


def test_log_probabilities(served: Served) -> None:
    response = respond(
        served, input="hi", include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=5
    )
    logprobs = response.output[0].content[0].logprobs
    assert len(logprobs) == 5
    assert {len(entry.top_logprobs) for entry in logprobs} == {2}
    events = list(
        respond(
            served, input="hi", include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=5,
            stream=True,
        )
    )  # fmt: skip
    assert events[-1].response.output[0].content[0].logprobs == logprobs


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        (
            {"input": [{"type": "computer_call", "id": "x"}]},
            "items of this type are not supported; they are message,",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "parts of this type are not supported; they are input_text",
        ),
        ({"background": True}, "background = True: this is not supported"),
        ({"conversation": "conv_1"}, "conversation = 'conv_1'"),
        ({"text": {"verbosity": "low"}}, "text.verbosity is not supported"),
        ({"temperature": -1}, "temperature = -1"),
        ({"max_output_tokens": 0}, "max_output_tokens = 0"),
        ({"input": []}, "messages"),
    ],
)
def test_refusals(served: Served, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        respond(served, extra={"input": "x", **fields}, input="x")


def test_what_cannot_change_an_answer_is_taken(served: Served) -> None:
    plain = respond(served, input="hi")
    response = respond(
        served, input="hi", metadata={"a": "b"}, user="u", truncation="auto", service_tier="auto",
        include=["reasoning.encrypted_content"], prompt_cache_key="k", max_tool_calls=3,
        parallel_tool_calls=True,
    )  # fmt: skip
    assert response.output_text == plain.output_text
    assert response.metadata == {"a": "b"}
    answer = served.post(
        "/v1/responses", input="hi", max_output_tokens=2, service_tier="auto", reasoning={"summary": "auto"}
    )
    assert set(answer.headers["x-outrider-ignored"].split(", ")) == {"service_tier", "reasoning.summary"}


def chat_fields(**fields: Any) -> Any:
    body = ResponsesRequest.model_validate(fields)
    return chat_of(body, items_of(body)).model_dump(exclude_none=True)


WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


def test_tools_become_those_of_chat() -> None:
    fields = chat_fields(
        input="hi", tools=[WEATHER | {"strict": True, "description": "d"}], parallel_tool_calls=False,
        tool_choice={"type": "function", "name": "weather"}, reasoning={"effort": "low"},
    )  # fmt: skip
    function = {"name": "weather", "parameters": WEATHER["parameters"], "strict": True, "description": "d"}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert fields["parallel_tool_calls"] is False
    assert fields["reasoning_effort"] == "low"


def test_a_turn_of_the_models_is_one_message() -> None:
    """It thinks, speaks and calls; then come the results, and the next turn."""

    def call(number: int) -> dict[str, Any]:
        return {"type": "function_call", "call_id": f"c{number}", "name": "weather", "arguments": "{}"}

    def result(number: int) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": f"c{number}", "output": f"r{number}"}

    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    spoken = {"role": "assistant", "content": "let me look"}
    fields = chat_fields(
        input=[{"role": "user", "content": "hi"}, thought, spoken, call(1), call(2), result(1), result(2),
               thought, call(3), result(3), spoken, spoken],
    )  # fmt: skip
    messages = fields["messages"]
    assert [message["role"] for message in messages] == [
        "user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "assistant",
    ]  # fmt: skip
    assert messages[1]["reasoning_content"] == "hm"
    assert messages[1]["content"] == "let me look"
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert messages[3] == {"role": "tool", "tool_call_id": "c2", "content": "r2"}
    assert "content" not in messages[4]


def test_a_thought_begins_a_turn() -> None:
    thoughts = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]} for text in ("one", "two")
    ]
    messages = chat_fields(input=thoughts)["messages"]
    assert [message["reasoning_content"] for message in messages] == ["one", "two"]


EVENTS: list[Event] = [
    Reasoning("let "), Reasoning("me see"), Content("I "), Content("look"), CallBegins(0, "c0", "weather"),
    CallArguments(0, '{"a"'), CallArguments(0, ": 1}"),
    CallBegins(1, "c1", "weather"), CallArguments(1, "{}"),
]  # fmt: skip


def test_items_of_every_kind() -> None:
    output = Output()
    forms = [*output.feed(EVENTS, []), *output.close("completed")]
    assert [item["type"] for item in output.items] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert output.items[0]["content"] == [{"type": "reasoning_text", "text": "let me see"}]
    assert output.items[2]["arguments"] == '{"a": 1}'
    assert [form["item"] for form in forms if form["type"] == "response.output_item.done"] == output.items
    added = [form for form in forms if form["type"] == "response.output_item.added"]
    assert [form["output_index"] for form in added] == [0, 1, 2, 3]
    assert [form["item"]["id"] for form in added] == [item["id"] for item in output.items]
    assert {form["item"]["status"] for form in added} == {"in_progress"}
    kinds = [form["type"] for form in forms if form.get("output_index") == 2]
    assert kinds == [
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done",
    ]  # fmt: skip


def test_the_store_is_bounded() -> None:
    def response(number: int, text: str = "") -> dict[str, Any]:
        content = [{"type": "output_text", "text": text}]
        message = {"type": "message", "role": "assistant", "content": content, "id": f"m{number}"}
        return {"id": f"r{number}", "output": [message]}

    def kept(store: ResponseStore, number: int) -> bool:
        try:
            store.get(f"r{number}")
        except ApiError:
            return False
        return True

    store = ResponseStore(most_responses=2)
    for number in range(2):
        store.keep(response(number), [])
    store.get("r0")
    store.keep(response(2), [])
    assert [kept(store, number) for number in range(3)] == [True, False, True]
    store = ResponseStore(most_bytes=10_000)
    store.keep(response(0, "x" * 3000), [])
    store.keep(response(1, "x" * 3000), [])
    assert [kept(store, number) for number in range(2)] == [False, True]
    store.keep(response(2, "x" * 20_000), [])
    assert [kept(store, number) for number in range(3)] == [False, False, False]
