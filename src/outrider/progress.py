"""Progress of a batch, on stderr."""

from __future__ import annotations

from collections.abc import Sequence
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

    def update(self, increments: Sequence[Increment]) -> None:
        """Count what one step added."""
        if self._progress.disable:
            return
        self._tokens += sum(len(increment.token_ids) for increment in increments)
        finished = sum(i.finish_reason is not None and i.index == 0 for i in increments)
        self._progress.update(self._task, advance=finished, tokens=self._tokens)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
