"""An engine in a process of its own, driven through a pipe on which it sleeps between requests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

from benchmarks.peers.base import Build, Setup

PATIENCE = 600  # seconds for loading or one request, after which an engine counts as stuck


class Unavailable(Exception):
    """The engine is not installed, cannot load the file, failed, died or is stuck; the message says which."""


@dataclass(frozen=True)
class Generation:
    """seconds: inside the engine, the pipe not counted. tokens: of each prompt."""

    seconds: float
    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Failure:
    reason: str


@dataclass(frozen=True)
class Loaded:
    """seconds: from the file to an engine that is ready, without importing it."""

    about: str
    seconds: float


class Worker:
    """Raises Unavailable from every method but `close`, which must be called."""

    def __init__(self, build: Build, setup: Setup) -> None:
        context = get_context("spawn")  # a forked thread pool would not work
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, setup), daemon=True)
        self._process.start()
        theirs.close()  # or a dead worker would not close the pipe
        try:
            self.loaded: Loaded = self._receive()
        except Unavailable:
            self.close()
            raise

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Generation:
        try:
            self._pipe.send((prompts, tokens))
        except BrokenPipeError:
            raise Unavailable(self._obituary()) from None
        generation: Generation = self._receive()
        counts = [len(output) for output in generation.tokens]
        if counts != [tokens] * len(prompts):
            raise Unavailable(
                f"generated {counts} tokens where {tokens} were asked for by {len(prompts)} prompts"
            )
        return generation

    def cpu_seconds(self) -> float:
        """That the process has used so far."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            raise Unavailable(self._obituary()) from None
        return float(times.user + times.system)

    def close(self) -> None:
        self._pipe.close()  # which the worker takes as its end
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        if not self._pipe.poll(PATIENCE):
            raise Unavailable(f"no answer for {PATIENCE} s")
        try:
            reply = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise Unavailable(self._obituary()) from None
        if isinstance(reply, Failure):
            raise Unavailable(reply.reason)
        return reply

    def _obituary(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"its process died of {signal.Signals(-code).name}"
        return f"its process ended with exit status {code}"


def _serve(pipe: Connection, build: Build, setup: Setup) -> None:
    # Progress bars and news on loading would spoil the output; what goes wrong comes back through the pipe.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        start = time.perf_counter()
        peer = build(setup)
        pipe.send(Loaded(peer.about, time.perf_counter() - start))
        while True:
            prompts, tokens = pipe.recv()
            start = time.perf_counter()
            outputs = peer.generate(prompts, tokens)
            pipe.send(Generation(time.perf_counter() - start, tuple(map(tuple, outputs))))
    except EOFError:
        return
    except ImportError as error:
        pipe.send(Failure(f"not installed ({error})"))
    except Exception as error:  # whatever the engine raises; the other engines go on
        pipe.send(Failure(f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"))
