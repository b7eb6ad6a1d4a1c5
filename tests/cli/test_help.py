"""--help at 80 columns: every option is there, whole."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from outrider.cli.app import app
from outrider.cli.commands import MODULES
from tests.cli.terminal import run_in_terminal
from tests.test_imports import HEAVY

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODULES)
def test_options_are_whole(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout
    words = result.stdout.replace(",", " ").split()
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert set(parameter.opts) <= set(words)
    assert not re.search(r"<(str|int|float|list|path)", result.stdout)  # words of a parser, not of users


def test_the_list_of_commands_in_a_terminal() -> None:
    terminal = run_in_terminal("--help")
    assert terminal.widest <= 80
    listed = {line.split()[0] for line in terminal.lines if line.startswith("  ") and line.strip()}
    assert set(MODULES) <= listed
    own = [name for name in MODULES if name != "serve"]
    told = {line.split()[0]: line for line in terminal.lines if line.startswith("  ")}
    assert not [name for name in own if told[name].endswith("...")]


def test_an_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["bnch"])
    assert result.exit_code == 2
    assert "Did you mean 'bench'?" in result.stderr


@pytest.mark.parametrize("name", ["--version", "plan", "run", "generate"])
def test_nothing_slow_is_imported_before_the_first_line(name: str) -> None:
    """Until a command runs: NumPy alone takes longer than all that is imported by then."""
    get = f"typer.main.get_command(app).commands[{name!r}]" if name in MODULES else ""
    code = f"import sys, typer; from outrider.cli.app import app; {get}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "outrider.cli.app" in loaded
    assert not (HEAVY | {"numpy", "outrider.llm"}) & loaded
