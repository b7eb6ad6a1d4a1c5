"""The training process: that it trains, that it can be held, and that it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from outrider import ConfigError, SamplingParams
from outrider.adapting.child import TrainingProcess
from outrider.adapting.messages import Setup, TrainingRound
from outrider.adapting.settings import AdaptConfig
from tests.adapting.test_rounds import DOMAIN, said_by
from tests.engine.helpers import PROMPTS, expected, load
from tests.serving.harness import running, until

LEARNING = AdaptConfig(idle=0.0, every=400, passes=12, learning_rate=1e-2, margin=0.0)
"""A round takes a moment, also for the lowest priority on a busy machine."""
STARTING = """
import sys, time
from pathlib import Path
from outrider.adapting.child import TrainingProcess
from outrider.adapting.messages import Setup
from outrider.adapting.settings import AdaptConfig
process = TrainingProcess(Setup(sys.argv[1], None, Path(sys.argv[2]), 1, AdaptConfig()))
process.hold()
print(process.id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def process(target: str, head: str) -> Iterator[TrainingProcess]:
    started = TrainingProcess(Setup(target, None, Path(head), 1, LEARNING))
    yield started
    started.close()


def test_a_round_in_the_process(target: str, process: TrainingProcess) -> None:
    """It has the least right to processor time, does nothing while it is held, and says how it was ended."""
    seen = psutil.Process(process.id)
    assert seen.nice() == 19
    for passage in said_by(target, DOMAIN):
        process.send(passage)
    process.hold()
    until(lambda: seen.status() == psutil.STATUS_STOPPED)
    before = seen.cpu_times()
    time.sleep(0.05)
    assert seen.cpu_times() == before
    process.release()
    found = process.receive()
    assert isinstance(found, TrainingRound)
    assert found.after > found.before
    assert found.tensors is not None
    seen.kill()
    with pytest.raises((EOFError, OSError)):
        process.receive()
    assert process.why_it_ended() == "was ended by signal 9 (SIGKILL)"


def test_it_does_not_outlive_a_server_that_is_killed(target: str, head: str) -> None:
    """Not even where it is held, and cannot see that."""
    command = [sys.executable, "-c", STARTING, target, head]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        until(lambda: child.status() == psutil.STATUS_STOPPED)
        server.send_signal(signal.SIGKILL)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_server_whose_head_learns(target: str, head: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Its answers are those of the target alone, before, while and after versions take over; /metrics tells
    of them, and its process ends with the server."""
    llm = load(target, head, num_speculative_tokens=3, num_threads=1)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    with running(llm, learning=LEARNING) as served:
        adapter = served.engine.adapter
        assert adapter is not None
        child = psutil.Process(adapter._trainer.id)  # type: ignore[attr-defined]
        with suppress(psutil.AccessDenied):  # who may, lends it priority, so that a busy machine trains too
            child.nice(0)

        def metric(name: str) -> float:
            lines = served.http.get("/metrics").text.splitlines()
            (line,) = (line for line in lines if line.startswith(f"outrider:{name}{{"))
            return float(line.rpartition(" ")[2])

        def ask() -> None:
            for prompt in (*PROMPTS[:2], *DOMAIN):
                body = {"prompt": list(prompt), "max_tokens": 40, "temperature": 0, "ignore_eos": True}
                said = served.post("/v1/completions", **body).json()["choices"][0]["text"]
                assert said == expected(target, prompt, params).outputs[0].text

        assert metric("head_version") == 0
        while metric("head_version") == 0:
            rounds = metric("adapt_rounds_total")
            for _ in range(2):
                ask()
            while metric("adapt_rounds_total") == rounds:
                time.sleep(0.1)
        ask()
        assert metric("adapt_acceptance_length_after") >= metric("adapt_acceptance_length_before")
        assert metric("adapt_exchanges_total") >= 1
        assert metric("adapt_tokens_total") >= 400
        assert metric("adapt_running") == 1
    until(lambda: not child.is_running())
    assert capfd.readouterr().err == ""


def test_a_head_that_training_does_not_know_is_refused(target: str, head: str, tmp_path: Path) -> None:
    """At the start, in one line."""
    other = tmp_path / "other"
    shutil.copytree(head, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"norm_before_residual": True}))
    with pytest.raises(ConfigError, match=r"--adapt: .* has norm_before_residual") as caught:
        TrainingProcess(Setup(target, None, other, 1, AdaptConfig()))
    assert "\n" not in str(caught.value)


def test_a_server_without_a_head_cannot_learn(target: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"--adapt: no drafter .*\('suffix'\)"),
        running(load(target, "ngram"), learning=AdaptConfig()),
    ):
        pass
