"""Ctrl-C ends every command quietly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal

SLOW = """
import time
from pathlib import Path
Path({file!r}).write_text("")
time.sleep(60)
"""


def quiet(terminal: Terminal) -> None:
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.text
    assert "Aborted" not in terminal.text


def test_the_first_line_is_there_before_anything_slow_is_imported(tmp_path: Path) -> None:
    """In place of NumPy stands a module that takes a minute."""
    (tmp_path / "numpy.py").write_text(SLOW.format(file=str(tmp_path / "imported")))
    with Terminal("run", env={"PYTHONPATH": str(tmp_path)}) as terminal:
        terminal.wait_for("starting")
        while not (tmp_path / "imported").exists():
            time.sleep(0.01)
        quiet(terminal)
    assert terminal.lines[-2:] == ["interrupted", ""]


@pytest.mark.parametrize(
    ("arguments", "after"),
    [(["demo", "--max-tokens", "900"], "code ──"), (["verify", "--temperature", "1"], "verifying")],
    ids=["demo", "verify"],
)
def test_commands(arguments: list[str], after: str, target: str) -> None:
    with Terminal(*arguments, "-m", target, "-d", "ngram", "-k", "3") as terminal:
        terminal.wait_for(after)
        quiet(terminal)


def test_distill_says_how_to_go_on(target: str, tmp_path: Path) -> None:
    out = str(tmp_path / "a head")
    with Terminal("distill", "-m", target, "-o", out, "--tokens", "1000000") as terminal:
        terminal.wait_for("data")
        quiet(terminal)
    said = " ".join(" ".join(terminal.lines).split())
    assert f"to go on from what was saved: outrider distill --resume '{out}' --device auto" in said
