"""`outrider chat` and `outrider run` in a terminal."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.cli.test_cli import run

SUMMARY = re.compile(r"\[\d+ tokens?, .*\d+% drafted, first after \d+\.\d\d s(, stopped)?\]")
LONG = ["/set max_tokens 900", "/set min_tokens 900"]  # some tenths of a second


@contextmanager
def talking(target: str, home: Path, *arguments: str, blocked: str = "") -> Iterator[Terminal]:
    env = {"XDG_STATE_HOME": str(home)}
    if blocked:
        (home / "sitecustomize.py").write_text(f"import sys; sys.modules[{blocked!r}] = None\n")
        env["PYTHONPATH"] = str(home)
    options = ["-d", "ngram", "-k", "3", "--temperature", "0", "--max-tokens", "20", *arguments]
    with Terminal("run", target, *options, env=env) as terminal:
        terminal.wait_for("Ctrl-D leaves.")
        yield terminal


@pytest.fixture(params=["", "prompt_toolkit"], ids=["prompt_toolkit", "plain"])
def terminal(request: pytest.FixtureRequest, target: str, tmp_path: Path) -> Iterator[Terminal]:
    """With and without the extra `chat`."""
    with talking(target, tmp_path, blocked=request.param) as terminal:
        if request.param:
            terminal.wait_for("pip install 'outrider[chat]'")
        yield terminal


def ask(terminal: Terminal, line: str, answer: str) -> str:
    terminal.wait_for("\n>")
    terminal.send(f"{line}\r")
    return terminal.wait_for(answer)


def test_questions_and_commands(terminal: Terminal) -> None:
    said = ask(terminal, "the end the end", "first after")
    assert re.search(r"\[\d+ tokens?, .*\d+% drafted, ", said)
    ask(terminal, "/set temperature 0.5", "temperature = 0.5")
    ask(terminal, "/set temperature -1", "error: temperature = -1")
    ask(terminal, "/help", "/save FILE")
    terminal.wait_for("\n>")
    terminal.send("/quit\r")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.text
    assert terminal.widest <= 80


def test_ctrl_c_stops_the_answer_alone(terminal: Terminal) -> None:
    for line in LONG:
        ask(terminal, line, " = 900")
    terminal.wait_for("\n>")
    terminal.send("the end\r")
    terminal.wait_for("\n")
    terminal.wait_for("\n")  # of the answer's first line
    terminal.press_ctrl_c()
    assert terminal.wait_for("]").endswith(", stopped]")
    ask(terminal, "/set max_tokens 901", "max_tokens = 901")  # it goes on
    terminal.wait_for("\n>")
    terminal.interrupt("Ctrl-D or /quit leaves.")
    terminal.wait_for("\n>")
    terminal.send("\x04")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.text


def test_history_is_kept_and_is_private(target: str, tmp_path: Path) -> None:
    with talking(target, tmp_path) as terminal:
        ask(terminal, "/set seed 12345", "seed = 12345")
        terminal.wait_for("\n>")
        terminal.send("\x04")
        assert terminal.wait() == 0
    path = tmp_path / "outrider" / "chat_history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with talking(target, tmp_path) as terminal:
        terminal.wait_for("\n>")
        terminal.send("\x1b[A\r")  # the arrow upwards
        terminal.wait_for("seed = 12345")


def test_one_model_is_enough(target: str) -> None:
    result = run("chat", target, "-m", target, status=2)
    assert result.stderr.startswith(f"error: two models are given, {target!r} and --model {target!r}")
