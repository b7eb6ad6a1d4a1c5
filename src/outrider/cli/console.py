"""Where output goes: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

LEVELS = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}

stdout = Console()
stderr = Console(stderr=True)


def say(console: Console, text: str | Text, style: str = "") -> None:
    """A sentence, broken between words on a terminal; elsewhere it is one line."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def say_command(what: str, words: Sequence[str]) -> None:
    """What a command does, and the command: to copy, so it is not broken where the terminal ends."""
    stdout.print(f"{what} {shlex.join(words)}", highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


class ConsoleHandler(logging.Handler):
    """Log records as sentences on stderr, above a line of progress if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(stderr, self.format(record), LEVELS.get(record.levelname, ""))
        except Exception:
            self.handleError(record)
