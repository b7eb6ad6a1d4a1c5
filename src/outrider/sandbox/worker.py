"""The program of a worker process. It is run by its path and imports nothing of ours, so it starts at once.

It reads from a socket what it is for, which is a file with a function `begin`, and then jobs, one after the
other. A job that takes too much processor time ends the process; one that takes too much memory is refused,
or ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

LENGTH = struct.Struct(">Q")
PIECE = 1 << 20
STACK = 4 << 20
"""Bytes. Less than any thread of the parent has, so that what fits here does not overflow the stack there."""


def send(channel: socket.socket, value: Any, waiting: Callable[[], None] = lambda: None) -> None:
    """Write a JSON value. waiting: is called whenever the channel's timeout passes, and may raise."""
    data = json.dumps(value).encode()
    rest = memoryview(LENGTH.pack(len(data)) + data)
    while rest:
        try:
            rest = rest[channel.send(rest[:PIECE]) :]
        except TimeoutError:
            waiting()


def receive(channel: socket.socket, waiting: Callable[[], None] = lambda: None) -> Any:
    """Read a JSON value. Raises EOFError where the other side is gone; waiting: as for `send`."""
    (length,) = LENGTH.unpack(_read(channel, LENGTH.size, waiting))
    return json.loads(_read(channel, length, waiting))


def _read(channel: socket.socket, length: int, waiting: Callable[[], None]) -> bytes:
    data = bytearray()
    while len(data) < length:
        try:
            piece = channel.recv(min(length - len(data), PIECE))
        except TimeoutError:
            waiting()
            continue
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def main() -> None:
    channel = socket.socket(fileno=0)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        task = receive(channel)
        sys.path[:] = task["path"]
        answer = runpy.run_path(task["file"])["begin"](task["setup"])
        _limit(task["memory"])
        while True:
            job = receive(channel)
            with _limited_time(task["seconds"]):
                reply = _reply(answer, job)
            send(channel, reply)


def _reply(answer: Callable[[Any], Any], job: Any) -> dict[str, Any]:
    try:
        return {"answer": answer(job)}
    except MemoryError:
        return {"refused": "it takes too much memory"}
    except RecursionError:
        return {"refused": "it is nested too deeply"}
    except Exception as error:
        return {"refused": " ".join(str(error).split()) or type(error).__name__}


@contextlib.contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    """Where the block takes more processor time the process is ended, on systems that can do that."""
    try:
        from signal import ITIMER_PROF, setitimer
    except ImportError:
        yield
        return
    setitimer(ITIMER_PROF, seconds)
    yield
    setitimer(ITIMER_PROF, 0)


def _limit(memory: int) -> None:
    """Allow `memory` bytes more than the process has now, on systems that can do that, and no core dump."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_STACK, (STACK, STACK))
        with open("/proc/self/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
