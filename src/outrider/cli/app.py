"""`outrider`: its commands, and how errors are told."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from outrider import __version__
from outrider.cli.bench import bench
from outrider.cli.chat import chat
from outrider.cli.console import stderr
from outrider.cli.demo import demo
from outrider.cli.distill import distill
from outrider.cli.generate import generate
from outrider.cli.models import models
from outrider.cli.options import Command
from outrider.cli.plan import plan
from outrider.cli.serve import serve
from outrider.cli.tune import tune
from outrider.cli.verify import verify
from outrider.cli.vllm_flags import ServeCommand
from outrider.errors import OutriderError

USAGE_ERROR = 2

app = typer.Typer(
    help="Lossless speculative decoding: a draft proposes, the target verifies, the tokens stay the same.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, generate, chat, serve, verify, bench, tune, distill, plan, models):
    app.command(cls=ServeCommand if command is serve else Command)(command)


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
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app()
    except OutriderError as error:
        stderr.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(USAGE_ERROR)
