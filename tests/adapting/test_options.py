"""The options of `outrider serve` that have a head learn."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from outrider import LLM, ConfigError
from outrider.adapting.attach import threads_beside
from outrider.adapting.footprint import PYTORCH, learning_bytes
from outrider.adapting.settings import AdaptConfig
from outrider.cli.app import app
from outrider.config import resolve
from outrider.machine.cores import default_threads
from outrider.planning.allowed import Limit
from outrider.planning.limit import survey, within_limit

MIB = 2**20


@pytest.mark.parametrize("option", ["memory=1MiB", "cores=1", "save=folder"])
def test_options_of_learning_need_learning(option: str) -> None:
    result = CliRunner().invoke(app, ["serve", "x", "--port", "0", f"--adapt-{option}"])
    assert isinstance(result.exception, ConfigError)
    name = option.partition("=")[0]
    assert str(result.exception) == f"--adapt-{name} is given without --adapt; add that, or drop it"


def test_what_is_given_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning with cores of its own leaves them free, and takes its share of the limit of memory."""

    class Reached(Exception):
        pass

    def built(self: LLM, model: str, **given: Any) -> None:
        raise Reached(given)

    monkeypatch.setattr(LLM, "__init__", built)
    monkeypatch.setattr("outrider.serving.logs.log_to", lambda handler, level: None)  # the log is pytest's
    monkeypatch.setattr("outrider.adapting.attach.default_threads", lambda: 4)
    command = ["serve", "x", "--port", "0", "--adapt", "--adapt-cores", "1", "--adapt-memory", "64MiB"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, Reached), result.output
    (given,) = result.exception.args
    assert given["num_threads"] == 3
    assert given["beside"].keywords["adapt"] == AdaptConfig(cores=1, memory=64 * MIB)


def test_a_core_is_left_to_serve_with() -> None:
    there = default_threads()
    assert threads_beside(AdaptConfig()) is None
    with pytest.raises(ConfigError, match=rf"--adapt-cores = {there} leaves none of the {there} cores"):
        threads_beside(AdaptConfig(cores=there))


def test_the_plan_counts_what_learning_takes(target: str, head: str) -> None:
    """What is kept, the process, and the head several times; no more than that where there is no head."""
    config = resolve(target, device="cpu", speculative_model=head)
    small, large = (learning_bytes(config, AdaptConfig(memory=size * MIB)) for size in (64, 128))
    assert large - small == 64 * MIB
    assert small > 64 * MIB + PYTORCH
    assert learning_bytes(resolve(target, device="cpu", speculative_model="ngram"), AdaptConfig()) == 0
    limit = resolve(target, device="cpu", speculative_model=head, memory_limit="3GiB")
    plans = [
        survey(limit, Limit(3072 * MIB, "memory_limit"), beside=taken).given.plan for taken in (0, small)
    ]
    assert plans[1].least - plans[0].least == pytest.approx(small, rel=0.05)
    assert plans[1].total - plans[0].total == pytest.approx(small, rel=0.05)
    tight = resolve(target, device="cpu", speculative_model=head, memory_limit="400MiB")
    with pytest.raises(ConfigError, match=r"learning"):
        within_limit(tight, lambda given: learning_bytes(given, AdaptConfig()))
