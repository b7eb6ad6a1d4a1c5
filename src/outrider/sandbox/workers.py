"""A few worker processes for one task, as their parent sees them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Any

from outrider.sandbox import worker

POLL = 0.05  # seconds until a job that was given up ends
QUEUED_POLL = 0.25  # the same for one that has not begun
PATIENCE = 10  # times the processor time that a job may take: a busy machine gives a process little
START = 20.0  # seconds more for a worker to start


class Refused(Exception):
    """A job that failed or went beyond its limits. Its text says why, in a part of a sentence."""


class GivenUp(Exception):
    """A job that nobody waits for any more."""


def task_file(name: str) -> Path:
    """The file of a task of this package, which is not imported here: what it takes is the worker's alone."""
    return Path(__file__).with_name(f"{name}.py")


@dataclass(frozen=True)
class Task:
    """What workers do.

    file: of Python, with `begin(setup)`, which returns what answers a job. It may import what the parent can,
    but for outrider. setup, jobs and answers are of JSON. seconds: of processor time for a job; memory: bytes
    that a worker may take after it has begun.
    """

    file: Path
    setup: Any
    seconds: float
    memory: int


class Workers:
    """At most `count` processes, started when they are needed. May be used from several threads.

    None outlives the parent: each ends when its socket is closed, or at its limit of time.
    """

    def __init__(self, task: Callable[[], Task], *, count: int) -> None:
        self._task = task
        self._free = BoundedSemaphore(count)
        self._lock = Lock()
        self._idle: list[_Process] = []

    def ask(self, job: Any, given_up: Event | None = None) -> Any:
        """The answer to a job. Raises Refused, and GivenUp soon after `given_up` is set."""
        given_up = given_up or Event()
        while not self._free.acquire(timeout=QUEUED_POLL):
            if given_up.is_set():
                raise GivenUp
        try:
            process = self._take()
            try:
                reply = process.ask(job, given_up)
            except BaseException:
                process.end()
                raise
            with self._lock:
                self._idle.append(process)
        finally:
            self._free.release()
        if "refused" in reply:
            raise Refused(reply["refused"])
        return reply["answer"]

    @property
    def processes(self) -> list[int]:
        """The ids of those that wait for a job."""
        with self._lock:
            return [process.id for process in self._idle]

    def _take(self) -> _Process:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return _Process(self._task())
            if process.alive:
                return process
            process.end()


class _Process:
    """One worker."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._parent = os.getpid()
        self._channel, theirs = socket.socketpair()
        with theirs:
            # In a session of its own: a Ctrl-C is for the parent.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", worker.__file__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._end = weakref.finalize(self, _end, self._process, self._channel, self._parent)
        self._channel.settimeout(POLL)
        self._began = False

    @property
    def id(self) -> int:
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it can be asked. A process that was forked leaves its parent's workers alone."""
        return self._parent == os.getpid() and self._process.poll() is None

    def ask(self, job: Any, given_up: Event) -> Any:
        task = self._task
        deadline = time.monotonic() + PATIENCE * task.seconds + (0 if self._began else START)

        def waiting() -> None:
            if given_up.is_set():
                raise GivenUp
            if time.monotonic() > deadline:
                raise Refused(_too_long(task))

        try:
            if not self._began:
                worker.send(self._channel, self._beginning(), waiting)
                self._began = True
            worker.send(self._channel, job, waiting)
            return worker.receive(self._channel, waiting)
        except RecursionError:
            raise Refused("it is nested too deeply") from None
        except (EOFError, OSError):
            raise Refused(self._why_it_ended()) from None

    def end(self) -> None:
        self._end()

    def _beginning(self) -> dict[str, Any]:
        task = self._task
        about = {"file": str(task.file), "setup": task.setup, "seconds": task.seconds, "memory": task.memory}
        return about | {"path": [str(Path(folder).absolute()) for folder in sys.path]}

    def _why_it_ended(self) -> str:
        status = self._process.wait(timeout=START)
        if status == -getattr(signal, "SIGPROF", 0):
            return _too_long(self._task)
        memory = f"{self._task.memory >> 20} MiB of memory"
        return f"it takes more than {memory}, or has ended the process that tried it"


def _too_long(task: Task) -> str:
    return f"it takes more than {task.seconds:g} s of processor time"


def _end(process: subprocess.Popen[bytes], channel: socket.socket, parent: int) -> None:
    channel.close()
    if parent == os.getpid():
        process.kill()
        process.wait()
