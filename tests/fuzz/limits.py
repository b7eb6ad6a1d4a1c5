"""One attempt in a process of its own, with bounds on its time and memory."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from outrider.errors import OutriderError

LONGEST_MESSAGE = 1000  # characters
WORKS, REFUSED, FAILED = "works", "refused", "failed"


@dataclass(frozen=True)
class Limits:
    """What one attempt may take beyond what the process has when it begins. Processor time tells a hang on a
    busy machine; wall time is for one that sleeps."""

    memory: int = 2**30  # bytes of address space
    cpu_seconds: int = 20
    wall_seconds: float = 180.0


@dataclass(frozen=True)
class Outcome:
    """verdict: WORKS, REFUSED (with one of our errors, in one line) or FAILED; said: the message, or what
    happened instead."""

    verdict: str
    said: str = ""


def attempt(action: Callable[[], None], limits: Limits = Limits()) -> Outcome:
    """Run `action` in a fork of this process, which must have no threads."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _run(action, limits, write)
    os.close(write)
    try:
        return _awaited(child, read, limits)
    finally:
        os.close(read)


def _run(action: Callable[[], None], limits: Limits, write: int) -> NoReturn:
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory, used + limits.memory))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcome = _judged(action)
        os.write(write, f"{outcome.verdict} {outcome.said}"[:4000].encode(errors="replace"))
    finally:
        os._exit(0)


def _judged(action: Callable[[], None]) -> Outcome:
    try:
        action()
    except OutriderError as error:
        said = str(error)
        if said.splitlines() != [said] or not said.isprintable():
            return Outcome(FAILED, f"a message that is not one line: {said!r}")
        if len(said) > LONGEST_MESSAGE:
            return Outcome(FAILED, f"a message of {len(said)} characters: {said}")
        return Outcome(REFUSED, said)
    except BaseException as error:  # a library's panic is no Exception
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        return Outcome(FAILED, f"{type(error).__name__}: {error} ({places})")
    return Outcome(WORKS)


def _awaited(child: int, read: int, limits: Limits) -> Outcome:
    deadline = time.monotonic() + limits.wall_seconds
    report = b""
    while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(read, 2**16)
        if not piece:
            break
        report += piece
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if report:
        verdict, _, said = report.decode(errors="replace").partition(" ")
        return Outcome(verdict, said)
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit status {status}"
    return Outcome(FAILED, f"ended by {ended}, without a word")
