"""`outrider`: its commands, and how errors are told."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from outrider import __version__
from outrider.cli.commands import Commands
from outrider.cli.console import ConsoleHandler, say, stderr
from outrider.errors import OutriderError

USAGE_ERROR = 2

app = typer.Typer(
    help="Lossless speculative decoding: a draft proposes, the target verifies, the tokens stay the same.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain form of help keeps the names of options whole at 80 columns
    cls=Commands,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"outrider {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool,
        # Eager: it is looked at before a command is missed.
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of no command in particular."""


def main() -> None:
    """Run the command. What the user can mend is one line on stderr and exit status 2."""
    logging.basicConfig(
        handlers=[ConsoleHandler()], format="%(levelname)s: %(message)s", level=logging.WARNING, force=True
    )
    try:
        app()
    except OutriderError as error:
        say(stderr, f"error: {error}", "bold red")
        sys.exit(USAGE_ERROR)
