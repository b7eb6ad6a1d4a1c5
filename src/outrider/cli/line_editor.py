"""Where a conversation's lines come from: an editor on a terminal, or stdin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from platformdirs import user_state_path

from outrider.cli.console import say, stderr
from outrider.extras import CHAT

PROMPT = "> "
AGAIN = "Ctrl-D or /quit leaves."

Ask = Callable[[], str | None]
"""The next line, or None at the end of the input."""


def line_reader(commands: Sequence[str]) -> Ask:
    """On a terminal an editor with history and completion of `commands`: prompt_toolkit, or Python's own
    where that is not installed, which is said. Elsewhere the lines of stdin."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _from_stdin
    if CHAT.missing is None:
        return _unless_interrupted(_editor(commands))
    say(stderr, f"Editing of more than one line, and history: {CHAT.command}", "dim")
    return _unless_interrupted(_simple)


def _from_stdin() -> str | None:
    line = sys.stdin.readline()
    return line.strip() if line else None


def _simple() -> str:
    import readline  # noqa: F401  # input() edits a line with it

    return input(PROMPT)


def _editor(commands: Sequence[str]) -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session = PromptSession[str](
        history=FileHistory(str(_history_file())),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
    )
    return lambda: session.prompt(PROMPT)


def _history_file() -> Path:
    """Made for its owner alone: what people ask is their own business."""
    path = user_state_path("outrider", ensure_exists=True) / "chat_history"
    path.touch(mode=0o600)
    return path


def _unless_interrupted(ask: Callable[[], str]) -> Ask:
    """Ctrl-C gives a line up, and Ctrl-D ends the input."""

    def read() -> str | None:
        while True:
            try:
                return ask().strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                say(stderr, AGAIN, "dim")

    return read
