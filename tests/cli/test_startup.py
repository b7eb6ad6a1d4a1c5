"""What commands say while they start."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from outrider.cli.startup import Line
from outrider.loading import Loading
from tests.cli.terminal import run_in_terminal
from tests.cli.test_cli import run


def test_a_start_up_is_told_and_leaves_nothing(target: str) -> None:
    terminal = run_in_terminal("generate", "the end", "-m", target, "--max-tokens", "3")
    assert "starting" in terminal.text
    assert "starting" not in "\n".join(terminal.lines)
    assert terminal.widest <= 80


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (Loading("reading org/name:Q4_K_M"), "reading org/name:Q4_K_M"),
        (Loading("packing /a/long/path/model.gguf", 3, 4), "packing model.gguf BAR 75%"),
        (Loading("packing " + "x" * 100, 4, 4), f"packing {'x' * 37} BAR 100%"),
    ],
)
def test_a_step_fits_in_a_line(step: Loading, shown: str) -> None:
    line, file = Line(), io.StringIO()
    line.show(step)
    Console(file=file, width=80).print(line)
    said = file.getvalue().rstrip("\n")
    assert len(said) <= 80
    assert re.sub("[━╸╺]+ *", "BAR ", said[2:]).rstrip() == shown  # without colours, what is missing is blank


def test_nothing_of_it_without_a_terminal_or_with_json(target: str) -> None:
    assert run("generate", "the end", "-m", target, "--max-tokens", "3").stderr == ""
    terminal = run_in_terminal("generate", "the end", "-m", target, "--max-tokens", "3", "--json")
    assert terminal.text.startswith("[")
