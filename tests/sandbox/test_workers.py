"""Worker processes answer jobs, and end where a job goes beyond its limits or nobody waits for it."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from outrider.sandbox.workers import GivenUp, Refused, Task, Workers
from tests.serving.harness import until

PROGRAM = """
import os, signal, time

def begin(setup):
    def answer(job):
        match job:
            case "id":
                return os.getpid()
            case "loop":
                while True:
                    pass
            case "wait":
                time.sleep(60)
            case "grow":
                return len("a" * 2_000_000_000)
            case "end":
                os.kill(os.getpid(), signal.SIGKILL)
            case "fail":
                raise ValueError("two\\nlines")
        return [setup, job]
    return answer
"""


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    file = tmp_path / "task.py"
    file.write_text(PROGRAM)
    return Workers(lambda: Task(file, {"of": "all"}, seconds=0.2, memory=100 << 20), count=2)


def test_a_job_is_answered(workers: Workers) -> None:
    long = "ü" * 3_000_000
    assert workers.ask(long) == [{"of": "all"}, long]
    assert workers.ask("id") == workers.ask("id") == workers.processes[0]


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("loop", "it takes more than 0.2 s of processor time"),
        ("grow", "it takes too much memory"),
        ("end", "it takes more than 100 MiB of memory, or has ended the process that tried it"),
        ("fail", "two lines"),
    ],
)
def test_what_goes_too_far_is_refused(workers: Workers, job: str, reason: str) -> None:
    """And the next job finds a worker."""
    with pytest.raises(Refused) as refused:
        workers.ask(job)
    assert str(refused.value) == reason
    assert workers.ask(1) == [{"of": "all"}, 1]


def test_a_job_can_be_given_up(workers: Workers) -> None:
    given_up, first = Event(), workers.ask("id")
    Timer(0.05, given_up.set).start()
    with pytest.raises(GivenUp):
        workers.ask("wait", given_up)
    assert not alive(first)


def test_at_most_so_many_run(workers: Workers) -> None:
    """Whoever waits for a place can be given up as well."""
    given_up = Event()
    with workers._free, workers._free:
        Timer(0.05, given_up.set).start()
        with pytest.raises(GivenUp):
            workers.ask(1, given_up)
    assert not workers.processes


def test_a_worker_that_was_killed_is_replaced(workers: Workers) -> None:
    os.kill(workers.ask("id"), signal.SIGKILL)
    until(lambda: workers._idle[0]._process.poll() is not None)
    assert workers.ask(1) == [{"of": "all"}, 1]


def test_none_is_left(workers: Workers, tmp_path: Path) -> None:
    ids = [workers.ask("id")]
    others = Workers(workers._task, count=1)
    ids.append(others.ask("id"))
    assert all(map(alive, ids))
    del others
    gc.collect()
    assert [alive(each) for each in ids] == [True, False]


def test_a_worker_ends_with_its_parent(workers: Workers) -> None:
    """Also with one that was killed, and can end nothing itself: its sockets are closed then."""
    process = workers.ask("id")
    workers._idle[0]._channel.close()
    until(lambda: workers._idle[0]._process.poll() is not None)
    assert not alive(process)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_forked_child_leaves_its_parents_workers_alone(workers: Workers, monkeypatch: Any) -> None:
    first = workers.ask("id")
    with workers._idle[0]._channel.dup():  # the parent's own, which a child cannot close
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert workers.ask("id") != first
        assert alive(first)
