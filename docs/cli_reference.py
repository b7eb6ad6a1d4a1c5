"""MkDocs' hook that writes the page `cli.md` from the commands themselves, each time the site is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from outrider.cli.app import app

PAGE = "cli.md"
INTRODUCTION = """# Command line

Every command of `outrider`, with its options, as this version has them; `outrider COMMAND --help`
says the same. Errors that you can mend are one line on stderr, and the exit status is then 2.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """The page, in Markdown."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([INTRODUCTION, *(_command(name, commands[name]) for name in commands)])


def _command(name: str, command: Any) -> str:
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    usage = " ".join([f"outrider {name}", *(f"[{_metavar(each)}]" for each in arguments), "[OPTIONS]"])
    rows = [f"| {_names(each)} | {_meaning(each)} |" for each in shown]
    table = "\n".join(["| option | what it does |", "|---|---|", *rows])
    return f"## {name}\n\n`{usage}`\n\n{_prose(command.help)}\n\n{table if rows else ''}\n"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} `{_metavar(parameter)}`".replace("|", r"\|")


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("[].")


def _meaning(parameter: Any) -> str:
    return " ".join([_prose(parameter.help or "").replace("|", r"\|"), *_notes(parameter)])


def _notes(parameter: Any) -> Iterator[str]:
    """The default and the variable of the environment, where there are any that the text need not tell."""
    if parameter.default not in (None, False, ""):
        yield f"Default: `{parameter.default}`."
    if parameter.envvar:
        yield f"In the environment: `{parameter.envvar}`."


def _prose(text: str) -> str:
    """A help text, whose marks are Rich's, in Markdown."""
    return re.sub(r"\[b\](.*?)\[/b\]", r"`\1`", text.strip())
