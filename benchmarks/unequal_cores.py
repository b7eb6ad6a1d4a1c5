"""What a step costs where cores are not equal, over what their speeds add up to.

python -m benchmarks.unequal_cores [--json] [--model FILE] [--rows 1,8,64] [--rounds 5] [--seconds 1]

One thread a core, each kept on its own. A neighbour on the last core takes a part of its time:

- "half", "quarter": a process of real-time priority that works for some microseconds and sleeps for some, so
  that the core has about half or a quarter of its speed, as a small core beside large ones has. It needs the
  right to such priorities.
- "busy": a process that never sleeps, at the usual priority: the system runs it and Outrider's thread in
  turn, for some milliseconds each;
- "busy, free threads": the same, and Outrider's threads may run on any core.

What is ideal: the cores without the last one, and of what the last one adds to them the share that the
neighbour leaves. Both are measured in the same run without a neighbour, and the share by the neighbour's own
processor time; a process that never sleeps may have half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.variants import cache_folder, variant
from benchmarks.verification_cost import Subject
from outrider.errors import OutriderError

CONTEXT = 256
PULSES = """
import os, sys, time
core, priority, busy, idle = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
os.sched_setaffinity(0, {core})
if priority:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
print(flush=True)
while True:
    until = time.perf_counter() + busy
    while time.perf_counter() < until:
        pass
    if idle:
        time.sleep(idle)
"""


@dataclass(frozen=True)
class Neighbour:
    """priority: of real time, or 0. busy, idle: seconds of each pulse. pinned: Outrider's threads."""

    name: str
    priority: int = 0
    busy: float = 1.0
    idle: float = 0.0
    pinned: bool = True

    @contextmanager
    def beside(self, core: int) -> Iterator[psutil.Process]:
        arguments = [str(value) for value in (core, self.priority, self.busy, self.idle)]
        command = [sys.executable, "-c", PULSES, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise SystemExit(
                        f"{self.name}: this user may not have real-time priority; run it as root"
                    )
                yield psutil.Process(process.pid)
            finally:
                process.kill()


NEIGHBOURS = (
    Neighbour("half", 1, 50e-6, 50e-6),
    Neighbour("quarter", 1, 150e-6, 50e-6),
    Neighbour("busy"),
    Neighbour("busy, free threads", pinned=False),
)


@dataclass(frozen=True)
class Cost:
    """Mean milliseconds of a step of so many rows. share: of the last core, that was left to Outrider."""

    neighbour: str
    rows: int
    ms: float
    ideal_ms: float
    share: float

    @property
    def over_ideal(self) -> float:
        return self.ms / self.ideal_ms


class Team:
    """A model on one thread a core, which can be kept there."""

    def __init__(self, path: Path, cores: Sequence[int], most_rows: int) -> None:
        self.cores = cores
        before = {thread.id for thread in psutil.Process().threads()}
        self.subject = Subject(path, {}, CONTEXT, len(cores))
        self.subject.table.extend(CONTEXT + most_rows, most_rows)
        started = {thread.id for thread in psutil.Process().threads()} - before
        self._threads = [0, *sorted(started)[: len(cores) - 1]]

    def keep(self, pinned: bool) -> None:
        for thread, core in zip(self._threads, self.cores, strict=True):
            os.sched_setaffinity(thread, {core} if pinned else set(self.cores))

    def ms(self, rows: int, seconds: float) -> float:
        """Mean of as many steps as go into `seconds`."""
        self.subject.time(rows)
        start, steps = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            self.subject.time(rows)
            steps += 1
        return passed * 1e3 / steps


def measure(path: Path, cores: Sequence[int], rows: Sequence[int], rounds: int, seconds: float) -> list[Cost]:
    """The best round's cost for each neighbour and number of rows, over the ideal of the best rounds."""
    team, fewer = Team(path, cores, max(rows)), Team(path, cores[:-1], max(rows))
    fewer.keep(True)
    alone: dict[tuple[str, int], list[float]] = {}
    beside: dict[tuple[Neighbour, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for count in rows:
            for name, of in (("all", team), ("fewer", fewer)):
                of.keep(True)
                alone.setdefault((name, count), []).append(of.ms(count, seconds))
        for neighbour in NEIGHBOURS:
            team.keep(neighbour.pinned)
            with neighbour.beside(cores[-1]) as process:
                for count in rows:
                    before, start = sum(process.cpu_times()[:2]), time.perf_counter()
                    ms = team.ms(count, seconds)
                    taken = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - start)
                    share = 1 - taken if neighbour.idle else 0.5
                    beside.setdefault((neighbour, count), []).append((ms, share))
    costs = []
    for count in rows:
        all_, fewer_ = (1 / min(alone[name, count]) for name in ("all", "fewer"))
        costs.append(Cost("none", count, 1 / all_, 1 / all_, 1.0))
        costs.append(Cost("none, without the last core", count, 1 / fewer_, 1 / fewer_, 0.0))
        for neighbour in NEIGHBOURS:
            ms, share = min(beside[neighbour, count])
            costs.append(Cost(neighbour.name, count, ms, 1 / (fewer_ + share * (all_ - fewer_)), share))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", type=Path, help="a GGUF file; without it, SmolLM2 in Q4_1")
    parser.add_argument("--rows", default="1,8,64", help="of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        raise OutriderError("this system does not keep threads on cores; Linux does")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("it takes two cores at least")
    rows = [int(count) for count in args.rows.split(",")]
    with cache_folder(args.cache) as folder:
        costs = measure(args.model or variant("Q4_1", folder), cores, rows, args.rounds, args.seconds)
    if args.json:
        json.dump([asdict(cost) | {"over_ideal": cost.over_ideal} for cost in costs], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    sys.stdout.write(_table(costs))


def _table(costs: Sequence[Cost]) -> str:
    lines = [f"{'rows':>4}  {'neighbour':27} {'left':>5} {'ms':>8} {'ideal':>8} {'over':>6}"]
    for cost in costs:
        times = f"{cost.ms:8.2f} {cost.ideal_ms:8.2f} {cost.over_ideal:5.2f}x"
        lines.append(f"{cost.rows:4}  {cost.neighbour:27} {cost.share:5.0%} {times}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
