"""How many threads compute where nobody says it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import pytest

from outrider.machine import cores
from outrider.machine.cores import Cores, default_threads, threads_reason, usable_cores
from tests.machine.trees import write


@pytest.mark.parametrize(
    ("found", "threads", "reason"),
    [
        (Cores(8, 8, math.inf), 8, "one for each core that this process may use"),
        (Cores(16, 8, math.inf), 8, "one a core; this process may use 16 hardware threads of them"),
        (Cores(16, 8, 16.0), 8, "one a core; this process may use 16 hardware threads of them"),
        (Cores(16, 8, 2.5), 2, "a control group grants 2.5 of 8 cores"),
        (Cores(4, 4, 0.1), 1, "a control group grants 0.1 of 4 cores"),
        (Cores(1, 1, math.inf), 1, "one for each core that this process may use"),
    ],
)
def test_threads_and_why(found: Cores, threads: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found.threads == threads
    monkeypatch.setattr(cores, "usable_cores", lambda: found)
    assert default_threads() == threads
    assert threads_reason(None) == reason
    assert threads_reason(threads) == "as given"
    assert threads_reason(threads + 1) == f"as given; {threads} would be the default: {reason}"


# Two sockets of two cores of two hardware threads, as Linux numbers them.
SIBLINGS = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
# Two large cores of two hardware threads and four small ones of one.
HYBRID = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5", 6: "6", 7: "7"}


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(
    ("siblings", "allowed", "physical"),
    [
        (SIBLINGS, range(8), 4),
        (SIBLINGS, (0, 4), 1),
        (SIBLINGS, (0, 1), 2),
        (SIBLINGS, (0, 1, 4, 7), 3),
        (HYBRID, range(8), 6),
        (HYBRID, (1, 2, 7), 3),
    ],
)
def test_hardware_threads_of_a_core_count_once(
    tmp_path: Path,
    name: str,
    siblings: dict[int, str],
    allowed: range | tuple[int, ...],
    physical: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"cpu{number}/topology/{name}": f"{listed}\n" for number, listed in siblings.items()}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(allowed), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: 1.5)
    assert usable_cores(write(tmp_path, files)) == Cores(len(allowed), physical, 1.5)


@pytest.mark.parametrize(("allowed", "known", "physical"), [(8, 16, 8), (32, 16, 16), (3, None, 3)])
def test_without_a_topology(
    allowed: int, known: int | None, physical: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in some containers, and on other systems."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: known)
    assert usable_cores(tmp_path).physical == physical
