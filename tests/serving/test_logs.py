"""What can happen again and again does not fill the log."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from outrider.errors import ConfigError
from outrider.serving.logs import MOST_LINES, PERIOD, JsonFormatter, LimitLines
from outrider.serving.server import OWN_DESCRIPTORS, _on_loop_error, reserve_descriptors
from tests.engine.helpers import load
from tests.serving.harness import Wire, running


def record(line: int, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("x", level, "x.py", line, "again", (), None)


def test_lines_are_limited() -> None:
    """By place, not by message; the line of a request always passes."""
    now = 0.0
    limit = LimitLines(lambda: now)
    passed = [limit.filter(record(1)) for _ in range(1000)]
    assert passed == [True] * MOST_LINES + [False] * (1000 - MOST_LINES)
    assert limit.filter(record(2))
    assert all(limit.filter(record(1, logging.INFO)) for _ in range(100))
    now = PERIOD - 1
    assert not limit.filter(record(1))
    now = PERIOD
    first, second = record(1), record(1)
    assert limit.filter(first)
    assert limit.filter(second)
    assert first.__dict__["fields"] == {"left_out": 1001 - MOST_LINES}
    assert "fields" not in second.__dict__


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a server would write to stderr."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(LimitLines())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def test_no_descriptors_left(target: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some lines, without tracebacks; and once there are some again, connections are accepted.

    The server is closed before asyncio has tried anew as often as it was refused.
    """
    accept, refused = socket.socket.accept, 0

    def exhausted(listening: socket.socket) -> Any:
        nonlocal refused
        if refused >= 3000:
            return accept(listening)
        refused += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.02)
    with running(load(target)) as served:
        monkeypatch.setattr(socket.socket, "accept", exhausted)
        with Wire(served) as wire:
            wire.send("GET /version HTTP/1.1", "Host: localhost", "Connection: close")
            assert wire.rest().startswith(b"HTTP/1.1 200 ")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    told = [line for line in lines if line["level"] != "info"]
    assert [line["message"] for line in told] == [
        "connections cannot be accepted for now: Too many open files"
    ] * MOST_LINES
    assert not any("exception" in line for line in lines)


def test_a_socket_that_is_closed_is_not_served(log: io.StringIO) -> None:
    loop, listening = asyncio.new_event_loop(), socket.socket()
    loop.set_exception_handler(_on_loop_error)
    listening.close()
    loop.call_soon(loop._start_serving, asyncio.Protocol, listening)  # type: ignore[attr-defined]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert not log.getvalue()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((256, 4096), (512 + OWN_DESCRIPTORS, 4096)),
        ((1024, 1024), None),
        ((resource.RLIM_INFINITY,) * 2, None),
    ],
)
def test_descriptors_for_connections(
    before: tuple[int, int], after: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is raised where that is needed and allowed."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    reserve_descriptors(512)
    assert asked == ([] if after is None else [after])


def test_too_few_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("the system sets no limit")
    with pytest.raises(
        ConfigError, match=rf"max_connections = {hard} needs .* and the system allows {hard};"
    ):
        reserve_descriptors(hard)
