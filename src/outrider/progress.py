"""Progress of a batch, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from outrider.outputs import Increment


class GenerationProgress:
    """Sequences finished of all, and tokens a second."""

    def __init__(self, requests: int, *, enabled: bool) -> None:
        self._progress = Progress(
            TextColumn("Generating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[tokens]} tokens"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not enabled,
        )
        self._task = self._progress.add_task("", total=requests, tokens=0)
        self._tokens = 0

    def update(self, increment: Increment) -> None:
        """Count what a step added to one sequence."""
        if self._progress.disable:
            return
        self._tokens += len(increment.token_ids)
        finished = increment.finish_reason is not None and increment.index == 0
        self._progress.update(self._task, advance=int(finished), tokens=self._tokens)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
