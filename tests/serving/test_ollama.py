"""Ollama's own client drives /api, and reads what chat says to the same conversation."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest

from outrider.outputs import Increment, Piece
from outrider.params import SamplingParams
from outrider.serving.answers import Asked
from outrider.serving.ollama.answer import ChatLines
from outrider.serving.ollama.bodies import ChatBody
from outrider.serving.ollama.convert import chat_of
from outrider.serving.parsing.events import CallArguments, CallBegins, Content, Event, Reasoning
from outrider.serving.requests import ChatRequest
from tests.engine.helpers import load
from tests.serving.harness import MODEL, PATIENCE, Served, choice, running

SPECULATION = [{}, {"num_speculative_tokens": 0}]
MESSAGES: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the end"}]


def client(served: Served, **options: Any) -> Any:  # its fields may all be None
    return ollama.Client(host=served.url, timeout=PATIENCE, **options)


def options(**given: Any) -> dict[str, Any]:
    return {"temperature": 0, "num_predict": 24} | given


@pytest.mark.parametrize("extra", SPECULATION, ids=["speculation", "plain"])
def test_chat(served: Served, extra: dict[str, Any]) -> None:
    answer = client(served).chat(MODEL, MESSAGES, options=options(**extra))
    expected = choice(served, MESSAGES)
    assert answer.message.content == expected.message.content
    assert answer.done
    assert answer.done_reason == expected.finish_reason
    assert answer.eval_count == 24 or answer.done_reason == "stop"
    durations = [
        answer.total_duration,
        answer.load_duration,
        answer.prompt_eval_duration,
        answer.eval_duration,
    ]
    assert all(isinstance(duration, int) and duration > 0 for duration in durations)
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration - 2


@pytest.mark.parametrize("extra", SPECULATION, ids=["speculation", "plain"])
def test_a_stream_is_the_answer_in_pieces(served: Served, extra: dict[str, Any]) -> None:
    whole = client(served).chat(MODEL, MESSAGES, options=options(**extra))
    lines = list(client(served).chat(MODEL, MESSAGES, options=options(**extra), stream=True))
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(line.message.content or "" for line in lines) == whole.message.content
    assert lines[-1].eval_count == whole.eval_count
    assert lines[-1].prompt_eval_count == whole.prompt_eval_count
    assert lines[-1].done_reason == whole.done_reason
    generated = list(client(served).generate(MODEL, "the end", options=options(**extra), stream=True))
    told = "".join(line.response or "" for line in generated)
    assert told == choice(served, MESSAGES[1:]).message.content


def test_streams_are_lines_unless_told_otherwise(served: Served) -> None:
    answer = served.post("/api/chat", model=MODEL, messages=MESSAGES, options=options())
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"] is True


@pytest.mark.parametrize("kind", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
def test_a_body_of_any_type(served: Served, kind: dict[str, str]) -> None:
    """curl's `-d` says that it sends a form, and LiteLLM says nothing."""
    body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": False, "options": {"num_predict": 2}})
    answer = served.http.post("/api/chat", content=body, headers=kind)
    assert answer.json()["eval_count"] == 2
    assert served.http.post("/api/chat", content="{", headers=kind).status_code == 400


def test_generate(served: Served) -> None:
    answer = client(served).generate(MODEL, "the end", system="be brief", options=options())
    assert answer.response == choice(served, MESSAGES).message.content
    raw = client(served).generate(MODEL, "the end", raw=True, options=options())
    expected = served.client().completions.create(model=MODEL, prompt="the end", temperature=0, max_tokens=24)
    assert raw.response == expected.choices[0].text


def test_options(served: Served) -> None:
    given = options(temperature=0.8, seed=7, top_p=0.9, top_k=20, min_p=0.01, repeat_penalty=1.2,
                    num_predict=-1,
                    stop=["e", "\n"], num_ctx=2048, num_gpu=1, mirostat=0)  # fmt: skip
    answer = client(served).chat(MODEL, MESSAGES, options=given)
    expected = choice(
        served, MESSAGES, temperature=0.8, seed=7, top_p=0.9, stop=["e", "\n"], max_tokens=None,
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2},
    )  # fmt: skip
    assert answer.message.content == expected.message.content
    assert answer.done_reason == expected.finish_reason


SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("extra", SPECULATION, ids=["speculation", "plain"])
def test_forms(served: Served, extra: dict[str, Any]) -> None:
    answer = client(served).chat(MODEL, MESSAGES, format=SCHEMA, options=options(**extra))
    assert json.loads(answer.message.content or "")["a"] in (1, 2)
    close = served.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=9,
        response_format={"type": "json_object"},
    ).choices[0].message.content  # fmt: skip
    answer = client(served).chat(MODEL, MESSAGES, format="json", options=options(num_predict=9, **extra))
    assert answer.message.content == close


def test_log_probabilities(served: Served) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "options": options(num_predict=5)}
    answer = client(served).chat(MODEL, MESSAGES, **fields)
    assert [len(entry.top_logprobs or ()) for entry in answer.logprobs or ()] == [2] * 5
    lines = client(served).chat(MODEL, MESSAGES, **fields, stream=True)
    assert [entry for line in lines for entry in line.logprobs or ()] == answer.logprobs


def test_what_there_is(served: Served) -> None:
    (model,) = client(served).list().models
    assert model.model == MODEL
    assert model.size > 0
    assert model.details is not None
    assert model.details.family == "llama"
    assert model.details.quantization_level == "F32"
    shown = client(served).show(MODEL)
    template = served.llm.tokenizer.chat_template
    assert template is not None
    assert shown.template == template.source
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == served.service.model.max_model_len
    assert shown.modelinfo["general.parameter_count"] * 4 == model.size
    assert shown.capabilities == ["completion", "tools"]
    (running,) = client(served).ps().models
    assert running.context_length == served.service.model.max_model_len
    assert running.digest == model.digest
    assert served.http.get("/api/version").json().keys() == {"version"}


def test_a_model_is_loaded_already(served: Served) -> None:
    assert client(served).generate(MODEL, "").done_reason == "load"
    assert client(served).generate(MODEL, "", keep_alive=0).done_reason == "unload"
    assert client(served).chat(MODEL, []).message.content == ""


def test_names(served: Served) -> None:
    assert client(served).chat(f"{MODEL}:latest", MESSAGES, options=options(num_predict=2)).done
    with pytest.raises(ollama.ResponseError, match="does not exist") as missing:
        client(served).chat("other", MESSAGES)
    assert missing.value.status_code == 404


def test_a_key(target: str) -> None:
    with running(load(target), api_keys=["secret"]) as served:
        with pytest.raises(ollama.ResponseError, match="API key") as refused:
            client(served).list()
        assert refused.value.status_code == 401
        assert client(served, headers={"Authorization": "Bearer secret"}).list().models


@pytest.mark.parametrize(
    ("path", "fields", "reason"),
    [
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat is not supported"),
        ("chat", {"options": {"repeat_last_n": 64}}, "options.repeat_last_n is not supported"),
        ("chat", {"options": {"temperature": -1}}, "temperature = -1"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["x"]}]}, "images"),
        ("generate", {"template": "{{ .Prompt }}"}, "template = "),
        ("generate", {"suffix": "x"}, "suffix = 'x'"),
        ("generate", {"context": [1, 2]}, "context = "),
    ],
)
def test_refusals(served: Served, path: str, fields: dict[str, Any], reason: str) -> None:
    base = {"model": MODEL, "messages": MESSAGES} if path == "chat" else {"model": MODEL, "prompt": "x"}
    answer = served.post(f"/api/{path}", **base | fields)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_what_cannot_change_an_answer_is_taken_and_named(served: Served) -> None:
    answer = served.post(
        "/api/chat", messages=MESSAGES, stream=False, truncate=True, keep_alive="5m",
        options={"num_predict": 2, "num_gpu": 99, "mirostat": 0, "mirostat_tau": 5.0, "num_ctx": 4096},
    )  # fmt: skip
    assert answer.status_code == 200
    ignored = set(answer.headers["x-outrider-ignored"].split(", "))
    assert ignored == {"truncate", "options.num_gpu", "options.mirostat_tau"}


def test_calls_and_their_results() -> None:
    """Results are told in the order of the calls, or name their tool."""

    def call(name: str) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"of": name}}}

    body = ChatBody.model_validate(
        {
            "model": MODEL,
            "think": "high",
            "tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}],
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call("a"), call("b")]},
                {"role": "tool", "content": "rb", "tool_name": "b"},
                {"role": "tool", "content": "ra"},
            ],
        }
    )
    fields = chat_of(body).model_dump(exclude_none=True)
    _, turn, of_b, of_a = fields["messages"]
    ids = [sent["id"] for sent in turn["tool_calls"]]
    assert [of_a["tool_call_id"], of_b["tool_call_id"]] == ids
    assert len(set(ids)) == 2
    assert turn["reasoning_content"] == "hm"
    assert turn["tool_calls"][1]["function"]["arguments"] == '{"of": "b"}'
    assert fields["tools"][0]["function"]["name"] == "a"
    assert fields["reasoning_effort"] == "high"


EVENTS: list[Event] = [
    Reasoning("hm"), Content("I look"), CallBegins(0, "c0", "a"), CallArguments(0, '{"of"'),
    CallArguments(0, ": 1}"), CallBegins(1, "c1", "b"),
]  # fmt: skip


class Told:
    """A parser that finds the events above in whatever text."""

    def feed(self, text: str) -> list[Event]:
        return list(EVENTS)

    def finish(self) -> list[Event]:
        return []


def test_calls_are_told_whole() -> None:
    """Each once it has ended, the last one with the answer."""
    body = ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}]})
    asked = Asked("r", 0, MODEL, body, SamplingParams(), 3, parser=lambda index, whole: Told())
    increment = Increment("r", 0, (5,), (Piece(5, "x", "target"),), 0, 0, "stop", None)
    messages = [line["message"] for line in ChatLines(asked).chunks(0, increment)]
    assert [message.get("thinking") for message in messages] == ["hm", None, None, None]
    assert [message["content"] for message in messages] == ["", "I look", "", ""]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("c0", "a", {"of": 1}),
        ("c1", "b", {}),
    ]
