"""Who is told what an engine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outrider.engine.engine import Engine
from outrider.outputs import Increment, RequestOutput


class Watcher(Protocol):
    """Who counts what the engine does. Called in the thread that has the engine, so it should be quick."""

    def stepped(self, engine: Engine, increments: Sequence[Increment]) -> None:
        """A step has ended; `engine.report` is of it."""

    def finished(self, output: RequestOutput) -> None:
        """A request has ended, or was given up."""
