"""Clients that take their time, and too many of them: each is given up, and costs the others nothing."""

from __future__ import annotations

import json
import re
import select
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from outrider.engine import async_engine
from outrider.serving import connections, middleware, server
from tests.engine.helpers import load
from tests.serving.harness import Gate, Served, Wire, running, until

SOON = 0.2
POST = ("POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json")
GET = ("GET /version HTTP/1.1", "Host: localhost")


def message_of(answer: bytes) -> str:
    """Of an answer that is an error, and the last on its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    message: str = json.loads(body)["error"]["message"]
    return message


@pytest.fixture(scope="module")
def impatient(target: str) -> Iterator[Served]:
    """A server that waits for nothing, but that has time to generate."""
    with running(load(target), header_timeout=SOON, body_timeout=SOON, write_timeout=SOON) as served:
        yield served


@pytest.mark.parametrize("before", [0, 1])
def test_half_a_header(impatient: Served, before: int) -> None:
    """At the beginning, and after a request that was answered."""
    with Wire(impatient) as wire:
        for _ in range(before):
            assert wire.send(*GET).until(b'"}').startswith(b"HTTP/1.1 200")
        wire.socket.sendall(b"GET /version HTTP/1.1\r\nHost: local")
        answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 408")
    assert message_of(answer) == "the request's header did not come within 0.2 s"


def test_a_header_a_byte_at_a_time(impatient: Served) -> None:
    """No byte begins the time anew."""
    with Wire(impatient) as wire:
        assert drip(wire, b"x").startswith(b"HTTP/1.1 408")


def drip(wire: Wire, byte: bytes) -> bytes:
    """Send it again and again, until there is an answer."""
    answer = b""
    while not answer:
        wire.socket.sendall(byte)
        if select.select([wire.socket], [], [], 0.02)[0]:
            answer = wire.rest()
    return answer


def test_a_connection_without_a_word(impatient: Served) -> None:
    with Wire(impatient) as wire:
        assert wire.rest() == b""
    with Wire(impatient) as wire:
        wire.send(*GET)
        answer = wire.rest()  # and after an answer
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_byte_of_body_at_a_time(impatient: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole has to be there in time, not only the next byte."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.01)
    with Wire(impatient) as wire:
        answer = drip(wire.send(*POST, "Content-Length: 100000"), b" ")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the body did not come within 0.2 s" in answer


def test_a_body_that_nobody_reads(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is answered at once; what goes on coming is read for a while, and then no more."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", SOON)
    with Wire(served) as wire:
        wire.send("POST /nowhere HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked")
        assert wire.socket.recv(12) == b"HTTP/1.1 404"
        with pytest.raises(ConnectionError):
            send_forever(wire, b"5\r\nhello\r\n")


def send_forever(wire: Wire, chunk: bytes) -> None:
    while True:
        wire.socket.sendall(chunk)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system keeps little for a client, so that an answer need not be long to fill it."""
    monkeypatch.setattr(server, "SEND_BUFFER", 4096)


STREAM: dict[str, Any] = {"prompt": "the end", "max_tokens": 900, "ignore_eos": True, "temperature": 0}


def ask(wire: Wire, **fields: Any) -> None:
    body = json.dumps(STREAM | {"stream": True} | fields).encode()
    wire.send(*POST, f"Content-Length: {len(body)}", body=body)


@pytest.mark.usefixtures("small_buffers")
def test_a_client_that_never_reads(target: str) -> None:
    """It is given up, its request is aborted, and its seat and blocks are free for others."""
    with running(load(target), write_timeout=SOON) as served, Wire(served, receive_buffer=4096) as wire:
        gate = Gate(served)
        gate.shut(after=200)  # steps, which are more than the system takes, and not the end
        ask(wire, logprobs=20)
        until(lambda: served.service.engine.num_sequences == 1)
        until(lambda: served.service.engine.num_sequences == 0)
        gate.open()
        served.until_idle()
        assert b"[DONE]" not in wire.rest()
        aborted = 'outrider:request_success_total{finished_reason="abort",model_name="tiny"} 1.0'
        assert aborted in served.http.get("/metrics").text


@pytest.mark.usefixtures("small_buffers")
def test_an_answer_that_nobody_takes(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whole, and with nothing after it: it is not kept for ever either."""
    with running(load(target), write_timeout=SOON) as served, Wire(served, receive_buffer=4096) as wire:
        ask(wire, stream=False, prompt="the end " * 50, max_tokens=1, prompt_logprobs=20)
        until(lambda: "the client took nothing for 0.2 s" in caplog.text)
        head, _, body = wire.rest().partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    assert len(body) < int(length[1])


@pytest.mark.usefixtures("small_buffers")
def test_increments_that_nobody_takes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not pile up until the deadline: the call ends, and says so to whoever reads at last."""
    monkeypatch.setattr(async_engine, "MAX_UNREAD", 30)
    with running(load(target)) as served, Wire(served, receive_buffer=4096) as wire:
        gate = Gate(served)
        gate.shut(after=200)
        ask(wire, logprobs=20)
        until(lambda: served.service.engine.num_sequences == 1)
        until(lambda: served.service.engine.num_sequences == 0)
        gate.open()
        served.until_idle()
        told = wire.until(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert b"30 tokens of each sequence were not read" in told


def test_too_many_connections(target: str) -> None:
    """One more is told so at once, without being asked for a request; one that leaves makes room."""
    with running(load(target), max_connections=2) as served, ExitStack() as opened:
        first, second = (opened.enter_context(Wire(served)) for _ in range(2))
        for wire in (first, second):
            assert wire.send(*GET).until(b'"}').startswith(b"HTTP/1.1 200")
        answer = opened.enter_context(Wire(served)).rest()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 10" in answer
        assert message_of(answer) == "the server has as many connections as it takes; try again later"
        first.socket.close()

        def answered() -> bool:
            with Wire(served) as wire:
                return wire.send(*GET, "Connection: close").rest().startswith(b"HTTP/1.1 200")

        until(answered)


def test_half_bodies_give_their_memory_back(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_BODIES", 1)
    body = json.dumps({"prompt": "x" * 500, "max_tokens": 1}).encode()
    whole = (*POST, f"Content-Length: {len(body)}", "Connection: close")
    with running(load(target), max_body_size="1KiB") as served:
        half = Wire(served).send(*POST, "Content-Length: 1000", body=b" " * 900)

        def answer() -> bytes:
            with Wire(served) as wire:
                return wire.send(*whole, body=body).rest()

        until(lambda: answer().startswith(b"HTTP/1.1 503"))
        assert message_of(answer()) == (
            "the server holds as many bodies of requests as it may; try again later"
        )
        half.socket.close()
        until(lambda: answer().startswith(b"HTTP/1.1 200"))
