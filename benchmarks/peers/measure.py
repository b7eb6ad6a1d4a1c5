"""Rounds in which engines take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.peers.base import CLIENT_PROMPT, Setup
from benchmarks.peers.registry import OWN, PEERS
from benchmarks.peers.worker import Generation, Unavailable, Worker
from benchmarks.stored import stored_bytes
from outrider.planning.bandwidth import read_bandwidth

OF_SMOLLM2 = ["ngram", "head"]  # Outrider's drafters: what "auto" finds where nothing else lies
PAUSE = 0.05  # seconds: idle threads of the last engine spin for milliseconds before they sleep


@dataclass(frozen=True)
class Plan:
    """What every engine does in a round, `rounds` times after one round to warm up. clients: how many
    requests come at once, one measure each; client_prompts: of the most of them."""

    prompts: Sequence[Sequence[int]]
    long_prompt: Sequence[int]
    tokens: int
    rounds: int
    threads: int
    clients: Sequence[int] = ()
    client_prompts: Sequence[Sequence[int]] = ()


@dataclass
class Round:
    """Seconds of decoding, over all prompts, of the long prompt, and of so many clients; the tokens of each
    prompt."""

    decode: float = 0.0
    prompt: float = 0.0
    clients: dict[int, float] = field(default_factory=dict)
    outputs: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class Subject:
    """An engine, plain or with its speculation, and the rounds so far."""

    engine: str
    speculate: bool
    worker: Worker
    rounds: list[Round] = field(default_factory=list)
    failure: str | None = None

    def turn(self, *requests: tuple[Sequence[Sequence[int]], int]) -> list[Generation]:
        """The requests one after the other; nothing once one of this subject's has failed."""
        if self.failure is not None:
            return []
        time.sleep(PAUSE)
        try:
            return [self.worker.generate(prompts, tokens) for prompts, tokens in requests]
        except Unavailable as error:
            self.failure = str(error)
            return []


@dataclass(frozen=True)
class Skipped:
    engine: str
    speculate: bool
    reason: str


@dataclass(frozen=True)
class Result:
    """Rates are tokens a second, one a round without the warm-up; prompt is empty with speculation. clients:
    tokens of output, of so many clients together.

    loading: seconds that building the engine took.
    """

    engine: str
    speculate: bool
    about: str
    loading: float
    decode: list[float]
    prompt: list[float]
    outputs: list[tuple[int, ...]]
    clients: Mapping[int, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What was measured with one file.

    foreign_load: cores that processes other than the engines kept busy; bandwidth: bytes of
    memory read in a second; token_bytes: of the file's weights that a token reads."""

    results: list[Result]
    skipped: list[Skipped]
    foreign_load: float
    bandwidth: float
    token_bytes: int


def measure(path: Path, drafters: Sequence[str], engines: Sequence[str], plan: Plan) -> Measured:
    """drafters: Outrider's. Raises Unavailable if Outrider itself does not run."""
    subjects: list[Subject] = []
    skipped: list[Skipped] = []
    try:
        for engine in engines:
            for speculate in (False, True):
                setup = Setup(
                    path,
                    plan.threads,
                    speculate,
                    tuple(drafters),
                    clients=max(plan.clients, default=1),
                    client_tokens=CLIENT_PROMPT + plan.tokens,
                )
                try:
                    worker = Worker(PEERS[engine], setup)
                except Unavailable as error:
                    skipped.append(_skip(engine, speculate, str(error)))
                else:
                    subjects.append(Subject(engine, speculate, worker))
        _round(subjects, plan)
        skipped += _bury(subjects)
        bandwidth = read_bandwidth(plan.threads)  # each time while all engines sleep
        start = _Clock.now(subjects)
        for _ in range(plan.rounds):
            _round(subjects, plan)
            skipped += _bury(subjects)
        load = _Clock.now(subjects).load_since(start)
        bandwidth = max(bandwidth, read_bandwidth(plan.threads))
    finally:
        for subject in subjects:
            subject.worker.close()
    results = [_result(subject, plan) for subject in subjects]
    return Measured(results, skipped, load, bandwidth, stored_bytes(path).read)


def _round(subjects: Sequence[Subject], plan: Plan) -> None:
    """Each prompt by every subject in turn, then the long prompt and the clients by every subject without
    speculation.

    A short request goes before the timed ones: the CPU's caches hold another engine's weights, and what is
    too slow in generating the first token would be taken off the time of the others.
    """
    for subject in subjects:
        subject.rounds.append(Round())
    for prompt in plan.prompts:
        for subject in subjects:
            if turn := subject.turn(([prompt], 1), ([prompt], 1), ([prompt], plan.tokens)):
                _, first, whole = turn
                subject.rounds[-1].decode += whole.seconds - first.seconds
                subject.rounds[-1].outputs.extend(whole.tokens)
    short = plan.prompts[:1], 1
    plain = [subject for subject in subjects if not subject.speculate]
    for subject in plain:
        if turn := subject.turn(short, ([plan.long_prompt], 1)):
            subject.rounds[-1].prompt = turn[-1].seconds
    for clients in plan.clients:
        for subject in plain:
            if turn := subject.turn(short, (plan.client_prompts[:clients], plan.tokens)):
                subject.rounds[-1].clients[clients] = turn[-1].seconds


def _bury(subjects: list[Subject]) -> list[Skipped]:
    """Take out the subjects that have failed."""
    failed = [subject for subject in subjects if subject.failure is not None]
    for subject in failed:
        subject.worker.close()
        subjects.remove(subject)
    return [_skip(subject.engine, subject.speculate, str(subject.failure)) for subject in failed]


def _skip(engine: str, speculate: bool, reason: str) -> Skipped:
    if engine == OWN:
        raise Unavailable(f"{OWN} does not run: {reason}")
    return Skipped(engine, speculate, reason)


def _result(subject: Subject, plan: Plan) -> Result:
    steps = len(plan.prompts) * (plan.tokens - 1)
    rounds = subject.rounds[1:]
    return Result(
        subject.engine,
        subject.speculate,
        subject.worker.loaded.about,
        subject.worker.loaded.seconds,
        [steps / each.decode for each in rounds],
        [] if subject.speculate else [len(plan.long_prompt) / each.prompt for each in rounds],
        rounds[0].outputs,
        {n: [n * plan.tokens / each.clients[n] for each in rounds] for n in rounds[0].clients},
    )


@dataclass(frozen=True)
class _Clock:
    """Seconds: of the wall, of all cores' work, and of the engines' and this process's part of it."""

    wall: float
    busy: float
    ours: float

    @classmethod
    def now(cls, subjects: Sequence[Subject]) -> _Clock:
        cpu = psutil.cpu_times()
        own = os.times()  # children that are still alive are not in it
        ours = own.user + own.system + own.children_user + own.children_system
        ours += sum(subject.worker.cpu_seconds() for subject in subjects)
        return cls(time.perf_counter(), cpu.user + getattr(cpu, "nice", 0.0) + cpu.system, ours)

    def load_since(self, start: _Clock) -> float:
        """Cores kept busy by others."""
        return max(0.0, self.busy - start.busy - (self.ours - start.ours)) / (self.wall - start.wall)
