"""Pages of other sites cannot use the server, by whatever name they reach it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from outrider import ConfigError
from outrider.serving.errors import ApiError
from outrider.serving.origins import Names, names_of
from outrider.serving.settings import ServerConfig
from tests.engine.helpers import load
from tests.serving.harness import Served, running

BODY = b'{"prompt": "on", "max_tokens": 1}'


def status_of(names: Names, host: str, origin: str | None = None) -> int:
    try:
        names.check(host, origin)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("LOCALHOST:8000", 200), ("localhost.:8000", 200),
        ("127.0.0.1:8000", 200), ("127.9.9.9", 200), ("[::1]:8000", 200), ("", 200),
        ("evil.example", 421), ("evil.example:8000", 421), ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421), ("127.0.0.1@evil.example", 421), ("192.168.0.7", 421),
        ("[2001:db8::1]:8000", 421), ("proxy.example:8000", 200), ("Proxy.Example", 200),
    ],
)  # fmt: skip
def test_names(host: str, status: int) -> None:
    """On loopback, those of the machine itself, and the one that is allowed."""
    for listening in ("127.0.0.1", "localhost"):
        assert status_of(names_of(listening, ["proxy.example"]), host) == status
    if "proxy" not in host.lower():
        assert status_of(names_of("127.0.0.1", []), host) == status
        assert status_of(names_of("0.0.0.0", []), host) == 200
        assert status_of(names_of("0.0.0.0", ["proxy.example"]), host) == status


def test_a_name_of_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server listens at may itself be a name, which is then one of its names."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    names = names_of("mybox", [])
    assert status_of(names, "mybox:8000") == 200
    assert status_of(names, "evil.example") == 421


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "http://localhost:8000", 200),
        ("localhost:8000", "http://localhost:3000", 403),
        ("localhost:8000", "https://evil.example", 403),
        ("localhost:8000", "null", 403),
        ("localhost:8000", "", 403),
        ("", "null", 403),
        ("localhost:8000", "https://proxy.example", 200),
        ("localhost:8000", "https://proxy.example.evil", 403),
    ],
)
def test_origins(host: str, origin: str, status: int) -> None:
    for listening in ("127.0.0.1", "0.0.0.0"):
        assert status_of(names_of(listening, ["proxy.example"]), host, origin) == status


@pytest.mark.parametrize("listening", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("[::1]", 200), ("[::1%lo]:80", 200), ("[::ffff:127.0.0.1]:8000", 200), ("[0:0:0:0:0:0:0:1]", 200),
        ("[::]:8000", 421), ("0.0.0.0:8000", 421), ("[fe80::1%eth0]:8000", 421), ("[::ffff:10.0.0.1]", 421),
        ("[evil.example]:8000", 421),
    ],
)  # fmt: skip
def test_addresses(listening: str, host: str, status: int) -> None:
    assert status_of(names_of(listening, []), host) == status


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("https://chat.example", "https://chat.example", 200),
        ("https://chat.example", "https://Chat.example", 200),
        ("https://chat.example", "http://chat.example", 403),
        ("https://chat.example", "https://chat.example:8443", 403),
        ("https://chat.example", "https://chat.example.evil", 403),
        ("https://chat.example", "null", 403),
        ("*", "https://anything.example", 200),
        ("*", "null", 200),
    ],
)
def test_allowed_origins(allowed: str, origin: str, status: int) -> None:
    """An origin is a scheme, a name and a port. It is no name that the server may be called by."""
    names = names_of("127.0.0.1", [], [allowed])
    assert status_of(names, "localhost:8000", origin) == status
    assert status_of(names, "chat.example") == 421


PAGE = "https://chat.example"


def test_a_page_that_is_allowed_may_read_answers(target: str) -> None:
    """Errors too, and with a key: a browser asks beforehand, and gives none."""
    with running(load(target), allowed_origins=[PAGE], api_keys=["sesame"], max_body_size="1KiB") as served:
        asking = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        answer = served.http.options("/v1/completions", headers=asking)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in answer.headers["access-control-allow-headers"]
        key = {"Origin": PAGE, "Authorization": "Bearer sesame", "Content-Type": "application/json"}
        for headers, content, status in (
            (key, BODY, 200),
            (key, b"x" * 2000, 413),
            ({"Origin": PAGE, "Content-Type": "application/json"}, BODY, 401),
        ):
            answer = served.http.post("/v1/completions", content=content, headers=headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "access-control-allow-credentials" not in answer.headers
        assert "x-outrider-ignored" in answer.headers["access-control-expose-headers"].lower()
        for other in ("https://evil.example", "null"):
            answer = served.http.options("/v1/completions", headers=asking | {"Origin": other})
            assert answer.status_code == 400
            answer = served.http.post("/v1/completions", content=BODY, headers=key | {"Origin": other})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", "https://", ""])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match="give an origin as a browser does"):
        ServerConfig(model_name="x", allowed_origins=(origin,))


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/metrics", "/openapi.json", "/playground/x"])
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    asked, told = served.http.get(path), served.http.head(path)
    assert told.status_code == asked.status_code
    assert told.headers["content-type"] == asked.headers["content-type"]
    assert told.content == b""
    assert served.http.head("/tokenize").status_code == 405


def test_a_page_of_another_site(served: Served) -> None:
    """It may send a form without a question to the browser, which says where it is from."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        for path in ("/v1/completions", "/tokenize", "/nowhere"):
            answer = served.http.post(path, content=BODY, headers=headers | {"Content-Type": "text/plain"})
            assert answer.status_code in (421, 403)
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert "access-control-allow-origin" not in answer.headers
    own = {"Origin": served.url, "Content-Type": "application/json"}
    assert served.http.post("/v1/completions", content=BODY, headers=own).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_has_to_say_that_it_is_json(served: Served, kind: str | None) -> None:
    headers: Any = {} if kind is None else {"Content-Type": kind}
    for path, content in (("/v1/completions", BODY), ("/tokenize", b'{"prompt": "on"}')):
        answer = served.http.post(path, content=content, headers=headers)
        assert answer.status_code == 400
        assert "content type application/json" in answer.json()["error"]["message"]


def test_no_redirect_tells_the_name_that_a_client_gave(target: str) -> None:
    with running(load(target), allowed_hosts=["evil.example"]) as served:
        for method, path in (("GET", "/version/"), ("POST", "/tokenize/"), ("GET", "/playground")):
            answer = served.http.request(method, path, headers={"Host": "evil.example"})
            assert answer.status_code == 404
            assert "location" not in answer.headers
            assert "evil" not in answer.text
