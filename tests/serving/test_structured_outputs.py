"""Answers that fit, asked for in OpenAI's form and in vLLM's, are the offline engine's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import openai
import psutil
import pytest
from pydantic import BaseModel, Field

from outrider import LLM, SamplingParams
from outrider.sampling.grammar import AT_ONCE, GrammarLimits
from tests.engine.helpers import load
from tests.factories import tiny_config, write_model
from tests.heads import write_head
from tests.serving.harness import MODEL, Served, running, until
from tests.watchers import record

MESSAGES: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["on", "the end"]}, "count": {"enum": [1, 2, 30]}},
    "required": ["kind", "count"],
    "additionalProperties": False,
}


class Answer(BaseModel):
    kind: str = Field(max_length=3)
    certain: bool


@pytest.mark.parametrize("stream", [False, True])
def test_json_schema(served: Served, offline: LLM, stream: bool) -> None:
    named = {"name": "answer", "schema": SCHEMA, "strict": True}
    result: Any = served.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=1, seed=2, max_tokens=80, stream=stream,
        response_format={"type": "json_schema", "json_schema": named},
    )  # type: ignore[call-overload]  # fmt: skip
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in result)
    else:
        text = result.choices[0].message.content
    assert json.loads(text).keys() == {"kind", "count"}
    wanted: Any = {"json": SCHEMA}
    params = SamplingParams(temperature=1, seed=2, max_tokens=80, structured_outputs=wanted)
    assert text == offline.chat(MESSAGES, params, use_tqdm=False)[0].outputs[0].text


@pytest.mark.parametrize("drafter", ["head", "self:int4"])
def test_drafters_that_share_the_targets_work(drafter: str, tmp_path: Path) -> None:
    """A head, which reads the target's states also of what is forced, and the target at fewer bits."""
    target = tmp_path / "target"
    write_model(target, tiny_config(hidden_size=64, head_dim=16))
    if drafter == "head":
        write_head(tmp_path / "head", str(target))
    llm = load(
        str(target), str(tmp_path / "head") if drafter == "head" else drafter, num_speculative_tokens=3
    )
    with running(llm) as served:

        def ask(**fields: Any) -> Any:
            schema = {"name": "answer", "schema": SCHEMA}
            return served.post(
                "/v1/chat/completions",
                messages=MESSAGES,
                seed=2,
                max_tokens=80,
                response_format={"type": "json_schema", "json_schema": schema},
                speculation_metrics=True,
                **fields,
            ).json()

        for temperature in (0, 1):
            answer, plain = (
                ask(temperature=temperature),
                ask(temperature=temperature, num_speculative_tokens=0),
            )
            assert json.loads(answer["choices"][0]["message"]["content"]).keys() == {"kind", "count"}
            assert answer["choices"] == plain["choices"]
            metrics = answer["metrics"]["speculative_decoding"]
            assert metrics["num_accepted_draft_tokens"] > 0
            assert metrics["num_spec_tokens"] > 3  # forced ones, as no drafter may
            assert plain["metrics"]["speculative_decoding"]["num_draft_tokens"] == 0
        served.until_idle()


def test_parsed_by_the_client(served: Served) -> None:
    """OpenAI's client makes a schema of a class, and an object of the answer."""
    answer = served.client().chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Answer, temperature=0, max_tokens=80
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"choice": ["yes", "nö"]}, "yes|nö"),
        ({"regex": "[a-c]{2,4}-[0-9]"}, "[a-c]{2,4}-[0-9]"),
        ({"grammar": 'root ::= "a" [0-9]{2,3}'}, "a[0-9]{2,3}"),
        ({"json": {"enum": ["on", "off"]}}, '"on"|"off"'),
    ],
)
def test_vllms_form(served: Served, wanted: dict[str, Any], pattern: str) -> None:
    texts = {
        served.client().completions.create(
            model=MODEL, prompt="x", temperature=1, seed=4, max_tokens=40,
            extra_body={"structured_outputs": wanted, "num_speculative_tokens": length},
        ).choices[0].text
        for length in (0, 1, 4)
    }  # fmt: skip
    (text,) = texts
    assert re.fullmatch(pattern, text)


def test_json_object(served: Served) -> None:
    close = {str(served.llm.tokenizer.encode(text)[0]): 8 for text in ("}", '"')}
    answer = served.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, seed=1, max_tokens=80, logit_bias=close,
        response_format={"type": "json_object"},
    )  # fmt: skip
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_text_is_any_text(served: Served) -> None:
    fields: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "seed": 1, "max_tokens": 9}
    plain = served.client().chat.completions.create(**fields)
    named = served.client().chat.completions.create(**fields, response_format={"type": "text"})
    assert named.choices[0].message.content == plain.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex cannot be used: .*unclosed group"),
        ({"structured_outputs": {}}, "structured outputs with nothing: give exactly one of json"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured outputs with regex and choice"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp is not supported"),
        (
            {"structured_outputs": {"regex": "a"}, "ignore_eos": True},
            "ignore_eos = True with structured_outputs",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "response_format and structured_outputs are both given",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema is missing"),
    ],
)
def test_what_cannot_be(served: Served, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        served.client().completions.create(model=MODEL, prompt="x", extra_body=body)
    assert served.post("/v1/completions", prompt="x", max_tokens=1).status_code == 200


def test_a_schema_that_is_too_deep(served: Served) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    answer = served.post("/v1/completions", prompt="x", structured_outputs={"json": schema})
    assert answer.status_code == 400
    assert "structured_outputs.json cannot be used" in answer.json()["error"]["message"]


ENDLESS = {"grammar": "start: A\nA: /.*a.{18}/ & /.*b.{17}/ & ~/.*c.{16}/"}
MANY_FIELDS = {"json": {"properties": {f"property_{n}": {"type": "string"} for n in range(8000)}}}


def patient(target: str, seconds: float = 600.0) -> LLM:
    """An LLM whose grammars may take so long to compile."""
    llm = load(target)
    llm.engine.grammars.limits = GrammarLimits(seconds=seconds)
    return llm


@pytest.mark.parametrize("stream", [False, True])
def test_grammars_that_are_abandoned_are_given_up(target: str, stream: bool) -> None:
    """No process goes on with them, and no seat is kept."""
    before = set(psutil.Process().children())
    with running(patient(target)) as served:

        def ask() -> None:
            body = {"prompt": "x", "structured_outputs": ENDLESS, "stream": stream}
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{served.url}/v1/completions", json=body, timeout=1.0)

        clients = [Thread(target=ask) for _ in range(6)]
        for client in clients:
            client.start()
        until(lambda: served.service.engine.num_sequences == 6)
        until(lambda: len(set(psutil.Process().children()) - before) == 2)
        for client in clients:
            client.join()
        until(lambda: not set(psutil.Process().children()) - before)
        served.until_idle()


def test_a_request_that_times_out_gives_its_grammar_up(target: str) -> None:
    with running(patient(target), request_timeout=0.5) as served:
        answer = served.post("/v1/completions", prompt="x", structured_outputs=ENDLESS)
        assert answer.status_code == 504
        served.until_idle()
        grammars = served.llm.engine.grammars
        until(lambda: grammars._workers._free._value == AT_ONCE)
        assert not grammars._workers.processes


def test_a_grammar_that_takes_long_holds_no_other_stream(target: str) -> None:
    llm = patient(target, 0.5)
    with running(llm) as served:
        body = {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "stream": True}
        with served.http.stream("POST", "/v1/completions", json=body) as others:
            lines = others.iter_lines()
            next(lines)
            recorded = record(llm)
            refused = httpx.post(
                f"{served.url}/v1/completions",
                json={"prompt": "x", "structured_outputs": MANY_FIELDS},
                timeout=60,
            )
            assert refused.status_code == 400
            assert "it takes more than 0.5 s of processor time" in refused.json()["error"]["message"]
            assert len(recorded.schedules) > 20
            others.close()
        served.until_idle()
