"""Values that somebody gave, and errors of libraries, as messages show them: in one line, and shortened."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80
LONGEST_REASON = 300  # characters: a library's message may quote a file


def shown(value: Any) -> str:
    """A value that somebody gave, as Python writes it, or parts of that."""
    try:
        return SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "a number of thousands of digits"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names from a file: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def reason(error: BaseException) -> str:
    """The first line of what an error says, with the second where the first only announces it.

    It is the error's name where the error says nothing.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[: 2 if lines[0].endswith(":") else 1]
    return " ".join(said)[:LONGEST_REASON]
