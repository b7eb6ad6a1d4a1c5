"""Whatever is not a request as clients send it gets one answer, and leaves no traceback in the log."""

from __future__ import annotations

import logging

import pytest

from tests.serving.harness import Served, Wire

HOST = "Host: localhost"
LAST = "Connection: close"
JSON = "Content-Type: application/json"
POST = "POST /v1/completions HTTP/1.1"
BODY = b'{"prompt": "on", "max_tokens": 1}'


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        (["GET /version HTTP/1.1", LAST], b"", 400),  # without a host
        (["GET /version HTTP/1.1", HOST, HOST, LAST], b"", 400),
        (["GET /version HTTP/1.0"], b"", 200),
        (["GET /version HTTP/9.9", HOST, LAST], b"", 200),
        (["PRI * HTTP/2.0", LAST], b"", 404),
        (["\x16\x03\x01\x02"], b"", 400),
        (["GET /version"], b"", 400),
        (["GET /version HTTP/1.1", HOST, "a: " + "x" * 40000, LAST], b"", 400),
        (["GET /version HTTP/1.1", HOST, *(f"h{n}: x" for n in range(5000)), LAST], b"", 400),
        (["GET /version HTTP/1.1", HOST, "a b: x", LAST], b"", 400),
        (["GET /version HTTP/1.1", HOST, "a: x\0y", LAST], b"", 400),
        (["GET /" + "x" * 40000 + " HTTP/1.1", HOST, LAST], b"", 400),
        (["GET http://localhost/version HTTP/1.1", HOST, LAST], b"", 404),
        (["GET //version HTTP/1.1", HOST, LAST], b"", 404),
        (["GET /version/../health HTTP/1.1", HOST, LAST], b"", 404),
        (["GET /playground/%00 HTTP/1.1", HOST, LAST], b"", 404),
        (["GET /v1/models/%00%ff%0a HTTP/1.1", HOST, LAST], b"", 404),
        (["GET /a\0b HTTP/1.1", HOST, LAST], b"", 400),
        (["OPTIONS * HTTP/1.1", HOST, LAST], b"", 404),
        (["OPTIONS /v1/completions HTTP/1.1", HOST, LAST], b"", 405),
        (["HEAD /version HTTP/1.1", HOST, LAST], b"", 200),
        (["TRACE /version HTTP/1.1", HOST, LAST], b"", 405),
        (["CONNECT localhost:80 HTTP/1.1", HOST, LAST], b"", 404),
        (["BREW / HTTP/1.1", HOST, LAST], b"", 405),
        (["GET / HTTP/1.1", HOST, "Connection: upgrade, close", "Upgrade: websocket"], b"", 200),
        ([POST, HOST, LAST, JSON, "Content-Length: 5", "Content-Length: 6"], b"", 400),
        ([POST, HOST, LAST, JSON, "Content-Length: -1"], b"", 400),
        ([POST, HOST, LAST, JSON, "Content-Length: " + "9" * 5000], b"", 400),
        ([POST, HOST, LAST, JSON, "Content-Length: 99999999999"], b"", 413),
        ([POST, HOST, LAST, JSON, "Transfer-Encoding: gzip"], b"", 400),
        ([POST, HOST, LAST, JSON, "Transfer-Encoding: chunked"], b"zz\r\n", 400),
        ([POST, HOST, LAST, JSON, "Content-Encoding: gzip"], b"\x1f\x8b", 415),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_one_answer(
    served: Served, lines: list[str], body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(served) as wire:
        answer = wire.send(*lines, body=body).rest()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []
    assert served.http.get("/version").status_code == 200


def test_nonsense_after_the_answer(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """To a request whose body was not waited for: the connection ends, without another answer."""
    with Wire(served) as wire:
        wire.send("POST /nowhere HTTP/1.1", HOST, "Transfer-Encoding: chunked")
        assert wire.until(b"}}").startswith(b"HTTP/1.1 404 ")
        wire.socket.sendall(b"zz\r\n")
        assert wire.rest() == b""
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


def test_pipelining(served: Served) -> None:
    """Answers in the order of the requests; what is odd comes after them."""
    request = f"GET /version HTTP/1.1\r\n{HOST}\r\n\r\n".encode()
    with Wire(served) as wire:
        wire.socket.sendall(request * 3 + b"nonsense\r\n\r\n")
        answer = wire.rest()
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"400"]


def test_expect_100_continue(served: Served) -> None:
    with Wire(served) as wire:
        wire.send(
            POST, HOST, LAST, JSON, f"Content-Length: {len(BODY)}",
            "Expect: 100-continue",
        )  # fmt: skip
        assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        wire.socket.sendall(BODY)
        assert wire.rest().startswith(b"HTTP/1.1 200 ")


def test_a_user_that_is_a_book(served: Served) -> None:
    """It would be written to the log."""
    answer = served.post("/v1/completions", prompt="on", max_tokens=1, user="x" * 257)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "user"
