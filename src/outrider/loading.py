"""What loading a model says while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Loading:
    """A step of loading. what: it does, in words; done, total: of its work, where that can be counted."""

    what: str
    done: int = 0
    total: int = 0


Listener = Callable[[Loading], None]


def unheard(step: Loading) -> None:
    """Nobody listens."""
