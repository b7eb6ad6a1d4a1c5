"""Clients that leave, a queue that is full, time that is up, and what the log and the metrics say of it."""

from __future__ import annotations

import json
import logging
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from outrider import SamplingParams
from outrider.serving import middleware
from outrider.serving.logs import JsonFormatter, current_request
from tests.engine.helpers import load
from tests.serving.harness import MODEL, PATIENCE, Gate, Served, running, until

LONG: dict[str, Any] = {"prompt": "the end", "max_tokens": 900, "temperature": 0, "ignore_eos": True}
SHORT: dict[str, Any] = {"prompt": "on", "max_tokens": 24, "temperature": 1, "seed": 4}


def in_engine(served: Served) -> int:
    return served.service.engine.num_sequences


def test_clients_that_leave_free_their_blocks(target: str) -> None:
    """In a stream, and while they wait for a whole answer; the others' outputs stay what they are."""
    llm = load(target, "ngram")
    expected = load(target).generate("on", SamplingParams(temperature=1, seed=4, max_tokens=24))[0]
    with running(llm) as served:
        gate = Gate(served)
        with served.http.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as response:
            assert next(response.iter_lines()).startswith("data: ")
            gate.shut()
        until(lambda: in_engine(served) == 0)
        gate.open()
        served.until_idle()
        assert not llm.engine.unfinished

        gate.shut()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/v1/completions", json=LONG, timeout=0.3)
        until(lambda: in_engine(served) == 0)
        gate.open()
        served.until_idle()

        with ThreadPoolExecutor(12) as pool:
            staying = [pool.submit(served.post, "/v1/completions", **SHORT) for _ in range(6)]
            leaving = [pool.submit(leave_early, served, chunks) for chunks in (1, 2, 3, 5, 8, 13)]
            for future in leaving:
                future.result()
            texts = {future.result().json()["choices"][0]["text"] for future in staying}
        assert texts == {expected.outputs[0].text}
        served.until_idle()


def leave_early(served: Served, chunks: int) -> None:
    stream = served.client().completions.create(model=MODEL, prompt="in", max_tokens=900, stream=True)
    for _ in stream:
        chunks -= 1
        if not chunks:
            break
    stream.close()


def test_a_full_queue(target: str) -> None:
    with running(load(target, max_num_seqs=1), max_queue=1) as served, ThreadPoolExecutor(2) as pool:
        gate = Gate(served)
        gate.shut()
        waiting = [pool.submit(served.post, "/v1/completions", **SHORT) for _ in range(2)]
        until(lambda: in_engine(served) == 2)
        for stream in (False, True):
            refused = served.post("/v1/completions", **SHORT, stream=stream)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError, match="2 sequences are running or waiting, and 2 may"):
            served.client().completions.create(model=MODEL, prompt="on")
        gate.open()
        assert {future.result().status_code for future in waiting} == {200}
        assert served.post("/v1/completions", **SHORT).status_code == 200


def test_time_that_is_up(target: str) -> None:
    """Told as an error, in a stream as an event; blocks are freed."""
    with running(load(target), request_timeout=0.2) as served:
        gate = Gate(served)
        gate.shut()
        late = served.post("/v1/completions", **LONG)
        assert late.status_code == 504
        assert late.json()["error"]["message"] == "the request took longer than 0.2 s; ask for fewer tokens"
        with pytest.raises(openai.APIError, match=r"took longer than 0\.2 s"):
            list(served.client().completions.create(model=MODEL, prompt="the end", stream=True))
        gate.open()
        served.until_idle()
        assert served.post("/v1/completions", prompt="on", max_tokens=1).status_code == 200


def test_a_body_that_does_not_come(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nothing waiting; a body that comes in pieces, and slowly, is read."""
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.2)
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(HEAD + b"content-length: 99\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert (
        json.loads(answer.split(b"\r\n\r\n")[1])["error"]["message"] == "nothing of the body came for 0.2 s"
    )
    monkeypatch.setattr(middleware, "BODY_SECONDS", PATIENCE)
    body = json.dumps({"prompt": "on", "max_tokens": 1}).encode()
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for byte in body:
            connection.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")


HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    b"content-type: application/json\r\n"
)


def test_health_while_draining(target: str) -> None:
    with running(load(target)) as served:
        assert (served.http.get("/health").status_code, served.http.get("/health").json()) == (
            200,
            {"status": "ok"},
        )
        served.engine._stopped = "the server is shutting down"
        health = served.http.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "the server is shutting down"})
        refused = served.post("/v1/completions", **SHORT)
        assert refused.status_code == 503
        assert refused.json()["error"]["message"] == "the server is shutting down"


def test_request_ids_and_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="outrider.requests"):
        own = {"X-Request-Id": "abc-1"}
        named = served.http.post("/v1/completions", json=SHORT | {"user": "eve"}, headers=own)
        assert named.headers["X-Request-Id"] == "abc-1"
        assert named.json()["id"] == "cmpl-abc-1"
        for unfit in ("a b", "x" * 65, "\N{LATIN SMALL LETTER E WITH ACUTE}"):
            given = served.http.get("/version", headers={b"X-Request-Id": unfit.encode()})
            assert re.fullmatch("[0-9a-f]{32}", given.headers["X-Request-Id"])
        served.post("/v1/completions", prompt="x", temperature=-1)

        def lines() -> list[dict[str, Any]]:
            return [r.__dict__["fields"] for r in caplog.records if r.name == "outrider.requests"]

        until(lambda: len(lines()) == 5)  # a line is written after its answer was sent
    assert [line["status"] for line in lines()] == [200, 200, 200, 200, 400]
    first = lines()[0]
    assert (first["method"], first["path"], first["complete"]) == ("POST", "/v1/completions", True)
    assert (first["user"], first["prompt_tokens"], first["sequences"]) == ("eve", 1, 1)
    assert first["completion_tokens"] == named.json()["usage"]["completion_tokens"]
    assert first["seconds"] > 0


def test_a_line_of_the_log() -> None:
    token = current_request.set("abc-1")
    try:
        record = logging.LogRecord("outrider.x", logging.INFO, "x.py", 1, "made %s\n", ("it\x1b",), None)
        record.fields = {"status": 200}
        text = JsonFormatter().format(record)
    finally:
        current_request.reset(token)
    assert text.isascii()
    assert "\n" not in text
    line = json.loads(text)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "outrider.x",
        "message": "made it\x1b\n",
        "request_id": "abc-1",
        "status": 200,
    }


def samples(served: Served) -> dict[tuple[str, ...], float]:
    """Each metric's value by name and the values of its labels, but for the model's name."""
    values = {}
    for family in text_string_to_metric_families(served.http.get("/metrics").text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model_name") == MODEL
            values[(sample.name, *labels.values())] = sample.value
    return values


def test_metrics(target: str, draft: str) -> None:
    """They add up to what clients were told."""
    with running(load(target, draft, num_speculative_tokens=3)) as served:
        prompt = list(range(20, 90))
        fields = {"prompt": prompt, "max_tokens": 30, "temperature": 0, "speculation_metrics": True}
        answers = [served.post("/v1/completions", **fields).json() for _ in range(2)]
        served.post("/v1/completions", prompt="x", temperature=-1)
        told = [answer["metrics"]["speculative_decoding"] for answer in answers]
        usages = [answer["usage"] for answer in answers]
        values = samples(served)

        def value(name: str, *labels: str) -> float:
            return values[(f"outrider:{name}", *labels)]

        assert value("spec_decode_num_drafts_total") == sum(t["num_spec_steps"] for t in told)
        assert value("spec_decode_num_draft_tokens_total") == sum(t["num_draft_tokens"] for t in told)
        accepted = sum(t["num_accepted_draft_tokens"] for t in told)
        assert value("spec_decode_num_accepted_tokens_total") == accepted > 0
        by_position = [value("spec_decode_num_accepted_tokens_per_pos_total", str(p)) for p in range(3)]
        assert sum(by_position) == accepted
        assert by_position == sorted(by_position, reverse=True)
        generated = sum(usage["completion_tokens"] for usage in usages)
        assert value("generation_tokens_total") == generated
        assert value("prompt_tokens_total") == value("prefix_cache_queries_total") == 140
        cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
        assert value("prefix_cache_hits_total") == cached == 64
        assert value("spec_decode_draft_length_count") > value("spec_decode_num_drafts_total")
        assert value("spec_decode_draft_length_sum") == value("spec_decode_num_draft_tokens_total")
        steps = value("spec_decode_draft_length_count")
        assert value("inter_token_latency_seconds_count") == steps - 2
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
            assert value(f"{name}_count") == 2
            assert value(f"{name}_sum") > 0
        seconds = [value(f"spec_decode_{name}_seconds_total") for name in ("draft", "verify")]
        assert 0 < sum(seconds) < value("step_seconds_total")
        assert value("num_preemptions_total") == 0
        assert value("kv_cache_usage_perc") == value("num_requests_running") == 0
        assert value("num_requests_waiting") == 0
        reasons = {answer["choices"][0]["finish_reason"] for answer in answers}
        assert sum(value("request_success_total", reason) for reason in reasons) == 2
        assert value("http_requests_total", "/v1/completions", "200") == 2
        assert value("http_requests_total", "/v1/completions", "400") == 1


def test_the_dashboard_asks_for_metrics_that_there_are(served: Served) -> None:
    """Of docs/grafana.json."""
    served.post("/v1/completions", **SHORT)
    dashboard = Path(__file__).parents[2] / "docs" / "grafana.json"
    text = json.loads(dashboard.read_text())
    wanted = {
        name
        for panel in text["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"outrider:\w+", target["expr"])
    }
    assert len(wanted) > 12
    there = {name for name, *_ in samples(served)}
    assert wanted <= there, wanted - there
