"""`outrider serve --replicas` as a process, and the processes of its replicas."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from benchmarks.cluster.servers import processes
from tests.serving.harness import until
from tests.serving.test_process import Process

PATIENCE = 180.0  # seconds: Ray starts half a dozen processes


@contextmanager
def served(*arguments: str) -> Iterator[tuple[httpx.Client, Process]]:
    """A client of `outrider serve` with these arguments, at a port that is free. In the end it is told to
    stop, and ends well."""
    server = Process(*arguments, "--port", "0", "--log-format", "json")
    try:
        with httpx.Client(base_url=server.url(PATIENCE), timeout=PATIENCE) as http:
            yield http, server
        server.signal(signal.SIGTERM)
        assert server.status(PATIENCE) == 0
        assert server.lines[-1]["message"] == "stopped"
    finally:
        server.process.kill()
        server.status()
        for pipe in (server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()  # unread: Ray may have written of workers that died


def replicas(of: int | None = None) -> list[psutil.Process]:
    """The processes of replicas that descend from a process. of: its id; None: this one."""
    return processes(psutil.Process(of))


def until_there(number: int, of: int | None = None) -> None:
    """Wait for so many replicas."""
    until(lambda: len(replicas(of)) == number, PATIENCE)
