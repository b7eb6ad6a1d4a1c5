"""The server as a process: how it begins, how it ends, and how it begins again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from outrider import LLM, SamplingParams
from outrider.cli.app import app, main
from tests.serving.harness import PATIENCE, until

LONG: dict[str, Any] = {"prompt": "the end", "max_tokens": 600, "temperature": 0, "ignore_eos": True}


class Process:
    """`outrider serve`, and the lines of its log so far."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "outrider", "serve", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "OUTRIDER_API_KEY"}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def url(self, patience: float = PATIENCE) -> str:
        until(lambda: self._url() is not None or self.process.poll() is not None, patience)
        url = self._url()
        assert url is not None, self.lines
        return url

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def status(self, patience: float = PATIENCE) -> int:
        """Of its end, once all that it logged was read."""
        status = self.process.wait(patience)
        self._reader.join(PATIENCE)
        return status

    def _url(self) -> str | None:
        return next((line["url"] for line in self.lines if line["message"] == "listening"), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))


@contextmanager
def serving(*arguments: str) -> Iterator[Process]:
    started = Process(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.status()
        assert started.process.stdout is not None
        assert started.process.stderr is not None
        assert started.process.stdout.read() == ""
        started.process.stdout.close()
        started.process.stderr.close()


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The chunks of a stream, up to its end."""
    for line in response.iter_lines():
        if line == "data: [DONE]":
            return
        if line:
            yield json.loads(line.removeprefix("data: "))


def test_sigterm_lets_requests_finish(target: str, offline: LLM) -> None:
    """All that was asked for is sent, nothing else is taken, and the status is 0."""
    expected = offline.generate(
        "the end", SamplingParams(temperature=0, max_tokens=600, ignore_eos=True), use_tqdm=False
    )[0]
    with serving(target, "-d", "ngram", "--port", "0", "--served-model-name", "tiny") as server:
        url = server.url()
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "tiny"
        with httpx.stream("POST", f"{url}/v1/completions", json=LONG | {"stream": True}) as response:
            chunks = events(response)
            text = next(chunks)["choices"][0]["text"]
            server.signal(signal.SIGTERM)
            text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert text == expected.outputs[0].text
        assert server.status() == 0
        assert [line["message"] for line in server.lines if line["level"] != "info"] == []
        assert server.lines[-1]["message"] == "stopped"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")


def test_sigkill_leaves_nothing_that_hinders_a_restart(target: str, draft: str, offline: LLM) -> None:
    """In mid-stream, then a start on the same port, with the same answers; that server is told to stop twice,
    and ends what still runs."""
    expected = offline.generate("on", SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = (target, "-d", draft, "-k", "3", "--port", port)
    with serving(*arguments) as server:
        body = LONG | {"stream": True, "n": 16}
        with httpx.stream("POST", f"{server.url()}/v1/completions", json=body) as response:
            chunks = events(response)
            next(chunks)
            server.signal(signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                list(chunks)
        assert server.status() == -signal.SIGKILL
    with serving(*arguments) as server:
        body = {"prompt": "on", "temperature": 0, "max_tokens": 8}
        answer = httpx.post(f"{server.url()}/v1/completions", json=body, timeout=PATIENCE).json()
        assert answer["choices"][0]["text"] == expected.outputs[0].text
        body = LONG | {"stream": True, "n": 64, "max_tokens": 900}
        with httpx.stream("POST", f"{server.url()}/v1/completions", json=body) as response:
            chunks = events(response)
            next(chunks)
            server.signal(signal.SIGINT)
            until(lambda: any(line["message"] == "stopping" for line in server.lines))
            server.signal(signal.SIGTERM)
            *_, last = chunks
        assert last["error"]["message"] == "the server is shutting down"
        assert server.status() == 0


def cli_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["outrider", "serve", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        ((), "fcfs"),
        (("--scheduling-policy", "priority"), "priority"),
        (("-s", "scheduling_policy=priority"), "priority"),
    ],
)
def test_priorities_are_had_for_the_asking_alone(
    arguments: tuple[str, ...], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def built(self: LLM, model: str, **given: Any) -> None:
        assert given["scheduling_policy"] == policy
        raise Reached

    monkeypatch.setattr(LLM, "__init__", built)
    result = CliRunner().invoke(app, ["serve", "x", "--port", "0", *arguments])
    assert isinstance(result.exception, Reached)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("x", "--port", "70000"), "port = 70000"),
        (("x", "--host", "256.0.0.1"), "host = '256.0.0.1', port = 8000: cannot listen there"),
        (("x", "--api-key", "sesame", "--api-key", ""), "an empty key keeps nobody out"),
        (("x", "--log-level", "loud"), "log_level = 'loud': give one of debug, info, warning, error"),
        (("x", "--max-body-size", "big"), "give bytes as a number or as in '512MiB'"),
        (("x", "--request-timeout", "0"), "request_timeout = 0.0"),
        (("x", "--port", "0", "--scheduling-policy", "lifo"), "scheduling_policy = 'lifo'"),
        (("/no/such/model", "--port", "0"), "model '/no/such/model' does not exist"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reason in cli_error(monkeypatch, capsys, *arguments)


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "choose another" in cli_error(monkeypatch, capsys, "x", "--port", port)


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith(("outrider.serving", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    error = cli_error(monkeypatch, capsys, "x")
    assert "needs the package 'fastapi', which is not installed" in error
    assert error.rstrip().endswith("the extra 'server': pip install 'outrider[server]'")
