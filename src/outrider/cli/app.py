"""`outrider`: its commands, and how errors are told."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from outrider.cli.bench import bench
from outrider.cli.chat import chat
from outrider.cli.console import stderr
from outrider.cli.demo import demo
from outrider.cli.distill import distill
from outrider.cli.generate import generate
from outrider.cli.plan import plan
from outrider.cli.serve import serve
from outrider.cli.tune import tune
from outrider.cli.verify import verify
from outrider.errors import OutriderError

USAGE_ERROR = 2

app = typer.Typer(
    help="Lossless speculative decoding: a draft proposes, the target verifies, the tokens stay the same.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, generate, chat, serve, verify, bench, tune, distill, plan):
    app.command()(command)


@app.callback()
def common(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of no command in particular."""
    if show_version:
        sys.stdout.write(f"outrider {version('outrider')}\n")
        raise typer.Exit


def main() -> None:
    """Entry point. What the user can mend is one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app()
    except OutriderError as error:
        stderr.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
