"""Where output goes: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from outrider.outputs import Increment

stdout = Console()
stderr = Console(stderr=True)

STYLES = {"draft": "bold green", "bonus": "cyan", "correction": "yellow", "target": ""}
LEGEND = Text.assemble(
    "accepted draft tokens are ",
    ("green", STYLES["draft"]),
    ", the target's bonus after a whole draft ",
    ("cyan", STYLES["bonus"]),
    ", its corrections ",
    ("yellow", STYLES["correction"]),
)


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def coloured(increment: Increment) -> Text:
    """An increment's text, each token in the colour of where it came from."""
    return Text.assemble(*((piece.text, STYLES[piece.origin]) for piece in increment.pieces))
