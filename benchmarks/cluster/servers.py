"""`outrider serve --replicas`, and the processes of its replicas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from benchmarks.server import server

DRAFTS = ("-d", "suffix")
REPLICA = re.compile(r"ray::ServeReplica:\S+:Replica\b")


@contextmanager
def replicas_of(model: str, number: int, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """So many of one thread each: their URL, and the process that serves."""
    arguments = [model, *DRAFTS, "--replicas", str(number), "--cores-per-replica", "1", *options]
    with server(arguments) as serving:
        yield serving


def processes(server: psutil.Process) -> list[psutil.Process]:
    """Those of its replicas."""
    there = []
    for child in server.children(recursive=True):
        try:
            if REPLICA.match(" ".join(child.cmdline())):
                there.append(child)
        except psutil.Error:
            continue
    return there
