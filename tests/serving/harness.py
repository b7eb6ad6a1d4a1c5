"""A server on a port of its own, in a thread of the test's process, so that its engine can be looked at."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from openai import OpenAI

from outrider import LLM
from outrider.serving.model import LocalEngine, ServedModel
from outrider.serving.server import http_server, listen, url_of
from outrider.serving.service import Service
from outrider.serving.settings import ServerConfig

MODEL = "tiny"
PATIENCE = 60.0  # seconds for what should take none: the machine may be busy


@dataclass(frozen=True)
class Served:
    """A server that runs, and ways to talk to it."""

    url: str
    service: Service
    llm: LLM
    engine: LocalEngine
    http: httpx.Client

    def client(self, **options: Any) -> OpenAI:
        """OpenAI's own client; it tries nothing twice."""
        defaults: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE}
        return OpenAI(base_url=f"{self.url}/v1", **defaults | options)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def until_idle(self) -> None:
        """Wait until no sequence has a place in the engine and every block is free."""
        pool = self.llm.engine.target.pool
        until(lambda: not self.service.engine.num_sequences and pool.num_free == pool.num_blocks)


class Wire:
    """A connection to a server, for whatever is not HTTP as clients speak it."""

    def __init__(self, served: Served, *, receive_buffer: int | None = None) -> None:
        host, port = served.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, int(port)))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *lines: str, body: bytes = b"") -> Wire:
        """A header of these lines, and a body."""
        self.socket.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode() + body)
        return self

    def until(self, mark: bytes) -> bytes:
        """What comes up to where it ends in this."""
        came = b""
        while not came.endswith(mark):
            part = self.socket.recv(65536)
            assert part, came
            came += part
        return came

    def rest(self) -> bytes:
        """All that comes until the server has closed the connection."""
        parts = []
        try:
            while part := self.socket.recv(65536):
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)


class Gate:
    """Holds the engine's thread before a step while it is shut, so that a test has time to look."""

    def __init__(self, served: Served) -> None:
        self._open = threading.Event()
        self._open.set()
        self._left: int | None = None
        step = served.llm.engine.step

        def gated() -> Any:
            assert self._open.wait(PATIENCE)
            increments = step()
            if self._left is not None and increments:
                self._left -= 1
                if self._left <= 0:
                    self.shut()
            return increments

        served.llm.engine.step = gated  # type: ignore[method-assign]

    def shut(self, *, after: int | None = None) -> None:
        """after: how many steps that had work; None: now."""
        self._left = after
        if after is None:
            self._open.clear()

    def open(self) -> None:
        self._left = None
        self._open.set()


@contextmanager
def running(llm: LLM, **options: Any) -> Iterator[Served]:
    """A server of this model. options: of ServerConfig."""
    defaults: dict[str, Any] = {"model_name": MODEL, "port": 0}
    config = ServerConfig(**defaults | options)
    engine = LocalEngine(llm, queue=config.max_queue, learning=config.learning)
    service = Service(ServedModel.of(llm), engine, config)
    with serving(service, llm, engine) as served:
        yield served


@contextmanager
def serving(service: Service, llm: LLM, engine: LocalEngine) -> Iterator[Served]:
    """The server of a service."""
    server = http_server(service)
    with listen(service.config.host, service.config.port) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        url = url_of(bound)
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE) as http:
                yield Served(url, service, llm, engine, http)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for it; fail if it does not come within so many seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def choice(served: Served, messages: list[Any], **fields: Any) -> Any:
    """The choice of a chat's answer, which is greedy and short unless the fields say otherwise."""
    answer = served.client().chat.completions.create(
        model=MODEL, messages=messages, **{"temperature": 0, "max_tokens": 24} | fields
    )
    return answer.choices[0]


def said(served: Served, messages: list[Any], **fields: Any) -> str:
    """What chat says."""
    return choice(served, messages, **fields).message.content or ""
