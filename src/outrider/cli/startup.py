"""What a start-up is at, in a line on the terminal that goes when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from outrider.cli.console import stderr
from outrider.loading import Listener, Loading, unheard

WORDS = 45  # columns of what is being done, so that a bar fits beside it
BAR = 20  # columns


@contextmanager
def starting(*, quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows each step, with a bar where its work is counted. It shows nothing where stderr is
    no terminal, or where it is to be quiet."""
    if quiet or not stderr.is_terminal:
        yield unheard
        return
    from rich.live import Live

    line = Line()
    with Live(line, console=stderr, transient=True, refresh_per_second=10):
        yield line.show


class Line:
    """The newest step."""

    def __init__(self) -> None:
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")
        self._step = Loading("starting")

    def show(self, step: Loading) -> None:
        self._step = step

    def __rich__(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        step, line = self._step, Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self._spinner, Text(_short(step.what))]
        if step.total:
            bar = ProgressBar(total=step.total, completed=step.done, width=BAR)
            cells += [bar, f"{step.done / step.total:.0%}"]
        line.add_row(*cells)
        return line


def _short(what: str) -> str:
    """Without the folders of a path, and without the end of what is too long even so."""
    words = (Path(word).name if word.startswith(("/", "./", "../", "~")) else word for word in what.split())
    return " ".join(words)[:WORDS]
