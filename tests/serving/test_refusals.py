"""What the server cannot do it says, by name, in OpenAI's form, and without telling of itself."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from outrider import LLM
from outrider.serving.errors import ApiError
from tests.engine.helpers import load
from tests.factories import tiny_tokenizer, write_model
from tests.serving.harness import MODEL, Served, running

TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    assert "/" not in error["message"].replace("/v1/completions", "").replace("application/json", "")
    return error


def asked(part: dict[str, Any]) -> dict[str, Any]:
    """A body whose message has this part."""
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("path", "body", "param", "reason"),
    [
        (TEXT, {"prompt": "x", "best_off": 2}, "best_off", "not supported; leave it out"),
        (TEXT, {"prompt": "x", "suffix": "y"}, "suffix", "not supported; leave it out"),
        (TEXT, {"prompt": "x", "best_of": 2}, "best_of", "leave it out, or equal to n"),
        (TEXT, {"prompt": "x", "logprobs": 21}, "logprobs", "less than or equal to 20"),
        (TEXT, {"prompt": "x", "max_tokens": 0}, "max_tokens", "generates nothing"),
        (TEXT, {"prompt": "x", "max_tokens": "5"}, "max_tokens", "valid integer"),
        *(
            (TEXT, {"prompt": "x", "num_speculative_tokens": n}, "num_speculative_tokens", "equal to 1024")
            for n in (1025, 2**31, 2**56, 2**63, 10**30)
        ),
        (TEXT, {"prompt": "x", "n": 10**12}, None, "asks for 1000000000000 sequences"),
        (TEXT, {"prompt": ["x"] * 200, "n": 2}, None, "asks for 400 sequences"),
        (TEXT, {"prompt": ""}, None, "the prompt is empty"),
        (TEXT, {"prompt": []}, "prompt", "none of them empty"),
        (TEXT, {"prompt": [[]]}, "prompt", "none of them empty"),
        (TEXT, {"prompt": ["x", 5]}, "prompt", "a list of either"),
        (TEXT, {"prompt": "a\ud800"}, "prompt", "give a string"),
        (TEXT, {"prompt": "x", "stop": "\udfff"}, "stop", "surrogate"),
        (TEXT, {"prompt": "x", "stop": 5}, "stop", "stop = 5: input should be a valid string"),
        (TEXT, {"prompt": "x", "stop": ["y", 5]}, "stop.1", "stop.1 = 5: input should be a valid string"),
        (TEXT, {"prompt": "x", "structured_outputs": {"json": 5}}, "structured_outputs.json", "valid string"),
        (TEXT, {"prompt": "x", "stop": ["y"] * 1001}, "stop", "at most 1000 items"),
        (TEXT, {"prompt": "x", "bad_words": ["y"] * 1001}, "bad_words", "at most 1000 items"),
        (TEXT, {"prompt": "x", "raw": 5}, "raw", "raw is not supported; leave it out"),
        (TEXT, {}, "prompt", "prompt is missing"),
        (TEXT, {"prompt": "x", "stream_options": {}}, "stream_options", "are for stream = true"),
        (
            "/v1/completions",
            {"prompt": "x", "stream": True, "prompt_logprobs": 1},
            "prompt_logprobs",
            "cannot be streamed",
        ),
        (TEXT, {"prompt": "x", "logit_bias": {"9999": 1}}, None, "logit_bias holds token id 9999"),
        (TEXT, {"prompt": "x", "logit_bias": {"40": 101}}, "logit_bias", "less than or equal to 100"),
        (TEXT, {"prompt": "x", "logit_bias": {"he": 1}}, "logit_bias", "he"),
        (TEXT, {"prompt": "x", "min_tokens": 20}, None, "min_tokens = 20 is more than max_tokens = 16"),
        (CHAT, {"messages": HI, "tools": [{"type": "function"}]}, "tools.0.function", "is missing"),
        (CHAT, {"messages": HI, "tool_choice": "required"}, "tool_choice", "needs tools to choose from"),
        (CHAT, {"messages": HI, "functions": [{"name": "f"}]}, "functions", "give tools and tool_choice"),
        (CHAT, {"messages": HI, "function_call": "auto"}, "function_call", "give tools and tool_choice"),
        (TEXT, {"prompt": "x", "suffix": "none"}, "suffix", "not supported; leave it out"),
        (TEXT, {"prompt": "x", "use_beam_search": True}, "use_beam_search", "not supported; leave it out"),
        (CHAT, {"messages": HI, "max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "both given"),
        (CHAT, {"messages": HI, "top_logprobs": 2}, "top_logprobs", "for logprobs = true"),
        (CHAT, {"messages": []}, "messages", "at least 1 item"),
        (CHAT, {"messages": [{"role": "model", "content": "x"}]}, "messages.0.role", "'assistant' or 'tool'"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages.0.name", "a valid"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "content = 5: input"),
        (CHAT, asked({"type": "image_url"}), "messages.0.content.0.type", "input should be 'text'"),
        (CHAT, asked({"type": "text", "text": "x", "raw": 1}), "messages.0.content.0.raw", "not supported"),
        (CHAT, {"messages": HI, "temperature": -1}, "temperature", "temperature = -1: input should be"),
        ("/tokenize", {}, None, "give either prompt or messages"),
        ("/detokenize", {"tokens": [9999]}, None, "token id 9999"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0", "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_bad_bodies(served: Served, path: str, body: dict[str, Any], param: str | None, reason: str) -> None:
    content = json.dumps(body)  # httpx itself would refuse half a surrogate pair
    headers = {"Content-Type": "application/json"}
    error = error_of(served.http.post(path, content=content, headers=headers), 400)
    assert reason in error["message"]
    assert (error["param"] or "").startswith(param or "")
    assert "[" not in (error["param"] or "")  # nor does it tell how bodies are checked
    assert "(" not in (error["param"] or "")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b'{"prompt":', "application/json", "the body is not JSON"),
        (b"[1]", "application/json", "has to be a JSON object"),
        (b"\xff\xff", "application/json", "error parsing the body"),
        (b'{"prompt": "x"}', "text/plain", "application/json"),
        (b"", "application/json", "has to be a JSON object"),
        (b"[" * 10**5, "application/json", "error parsing the body"),
        (b'{"prompt": "x", "temperature": NaN}', "application/json", "temperature = nan"),
    ],
)
def test_what_is_no_body(served: Served, content: bytes, kind: str, reason: str) -> None:
    response = served.http.post("/v1/completions", content=content, headers={"Content-Type": kind})
    assert reason in error_of(response, 400)["message"]


def test_fields_that_ask_for_nothing_are_accepted(served: Served) -> None:
    """As an answer of OpenAI's client has them, when it is sent back."""
    answer = served.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=2, tools=[], store=False,
        logprobs=False, top_logprobs=0, tool_choice="none", metadata={},
        extra_body={"use_beam_search": False, "parallel_tool_calls": None},
    )  # fmt: skip
    message: Any = answer.choices[0].message.model_dump()
    again = served.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}, message], max_tokens=2
    )
    assert again.choices[0].finish_reason is not None


def test_too_many_prompts_are_not_even_tokenized(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_texts(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(served.service.prompts, "of_texts", of_texts)
    error = error_of(served.post(TEXT, prompt=["x"] * 100000), 400)
    assert error["message"].startswith("the request asks for 100000 sequences")


def test_unknown_places(served: Served) -> None:
    assert error_of(served.http.get("/v1/nothing"), 404)["message"] == "Not Found"
    assert error_of(served.http.get(CHAT), 405)["message"] == "Method Not Allowed"


def test_a_large_body(target: str) -> None:
    with running(load(target), max_body_size="1KiB") as served:
        fits = served.post("/v1/completions", prompt="x" * 500, max_tokens=1)
        assert fits.status_code == 200
        error_of(served.post("/v1/completions", prompt="x" * 2000), 413)

        def chunks() -> Any:
            for _ in range(100):
                yield b"x" * 100

        headers = {"Content-Type": "application/json"}
        error_of(served.http.post("/v1/completions", content=chunks(), headers=headers), 413)


def test_a_limit_of_output_tokens(target: str) -> None:
    with running(load(target), max_output_tokens=5) as served:
        error = error_of(served.post("/v1/completions", prompt="x", max_tokens=6), 400)
        assert error["message"] == "max_tokens = 6: this server generates 5 at most; lower it"
        answer = served.post(CHAT, messages=HI, ignore_eos=True).json()
        assert answer["usage"]["completion_tokens"] == 5


def test_api_keys(target: str) -> None:
    with running(load(target), api_keys=["sesame", "Übung"]) as served:
        refused = served.http.get("/v1/models")
        error = error_of(refused, 401)
        assert error["code"] == "invalid_api_key"
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for wrong in ("Bearer sesam", "sesame", "Basic sesame", "Bearer sesame2"):
            error_of(served.http.get("/v1/models", headers={"Authorization": wrong}), 401)
        for path in ("/metrics", "/openapi.json", "/version"):
            error_of(served.http.get(path), 401)
        assert served.http.get("/health").status_code == 200
        umlaut = {b"Authorization": "bearer Übung".encode()}
        assert served.http.get("/version", headers=umlaut).status_code == 200
        assert [model.id for model in served.client(api_key="sesame").models.list()] == [MODEL]


def test_a_model_without_a_chat_template(tmp_path: Any) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    write_model(tmp_path, tokenizer=tokenizer)
    with running(load(str(tmp_path))) as served:
        error = error_of(served.post(CHAT, messages=HI), 400)
        assert error["message"] == "the model has no chat template; use /v1/completions"


def test_a_template_that_refuses(tmp_path: Any) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    write_model(tmp_path, tokenizer=tokenizer)
    with running(load(str(tmp_path))) as served:
        assert "roles must alternate" in error_of(served.post(CHAT, messages=HI), 400)["message"]


def test_what_nobody_foresaw_is_logged_and_not_told(
    target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llm: LLM = load(target)

    def faulty(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("planted")

    with running(llm) as served:
        monkeypatch.setattr(llm, "chat_prompt", faulty)
        monkeypatch.setattr(llm.engine.target, "step", faulty)
        for path, body in ((CHAT, {"messages": HI}), (TEXT, {"prompt": "x"})):
            error = error_of(served.post(path, **body), 500)
            assert error["message"] == "an internal error ended this request; the log says more"
        monkeypatch.undo()
        assert served.post("/v1/completions", prompt="x", max_tokens=1).status_code == 200
    assert sum("planted" in (record.exc_text or "") for record in caplog.records) >= 2


def test_a_long_message_is_cut() -> None:
    body = ApiError(400, "x" * 5000 + "\ud800").body()
    assert len(body["error"]["message"]) < 1100
    json.dumps(body, ensure_ascii=False).encode()


def test_tokenizing(served: Served, offline: LLM) -> None:
    tokens = served.post("/tokenize", prompt="the end", return_token_strs=True).json()
    assert tokens["tokens"] == offline.tokenizer.encode("the end")
    assert (tokens["count"], tokens["max_model_len"]) == (len(tokens["tokens"]), 1024)
    assert tokens["token_strs"] == [offline.tokenizer.id_to_token(i) for i in tokens["tokens"]]
    assert served.post("/detokenize", tokens=tokens["tokens"]).json() == {"prompt": "the end"}
    chat = served.post("/tokenize", messages=HI).json()
    assert chat["tokens"] == offline.chat_prompt(HI)
    assert "token_strs" not in chat
    shorter = served.post("/tokenize", messages=HI, add_generation_prompt=False).json()
    assert shorter["tokens"] == offline.chat_prompt(HI, add_generation_prompt=False)
    assert shorter["count"] < chat["count"]


def test_priorities_are_for_servers_that_have_them(target: str) -> None:
    """A client's is bounded there: each step is ten seconds of head start."""
    with running(load(target, scheduling_policy="fcfs")) as served:
        error = error_of(served.post(TEXT, prompt="x", priority=-1), 400)
        assert error["param"] == "priority"
        assert "--scheduling-policy priority" in error["message"]
        for none in (0, None):
            assert served.post(TEXT, prompt="x", max_tokens=1, priority=none).status_code == 200
    with running(load(target, scheduling_policy="priority")) as served:
        for bound in (-60, 60):
            assert served.post(TEXT, prompt="x", max_tokens=1, priority=bound).status_code == 200
        for beyond in (-61, 61, -1000, 10**30):
            error = error_of(served.post(TEXT, prompt="x", priority=beyond), 400)
            assert error["param"] == "priority"
            assert f"priority = {beyond}" in error["message"]
            assert "60" in error["message"]
