"""`outrider serve`, started for a benchmark."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import psutil

START_SECONDS = 300.0


@contextmanager
def server(arguments: Sequence[str], program: str = "outrider serve") -> Iterator[tuple[str, psutil.Process]]:
    """A server as a process of its own, and where it listens. program: a module, and its first words."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *program.split(), *arguments, "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"], stdout=sys.stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start")
            time.sleep(0.2)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        if process.wait(START_SECONDS):
            raise SystemExit(f"the server ended with status {process.returncode}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
