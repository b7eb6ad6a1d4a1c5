"""Tables that keep every value, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

KEY = 20
"""What tells rows apart may be this wide in any case; a longer name is folded where there is no room."""


@dataclass(frozen=True)
class Column:
    """A heading, which may be broken at its spaces, and a cell for each row."""

    heading: str
    cells: Sequence[str | Text]
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """The width of the widest cell, or of the longest word of the heading."""
        return max(_text(part).cell_len for part in (*self.heading.split(), *self.cells))


def _text(cell: str | Text) -> Text:
    """Without markup: a name may hold brackets."""
    return Text(cell) if isinstance(cell, str) else cell


def in_mib(size: int) -> str:
    """Bytes as a whole number of MiB, for a cell."""
    return f"{size / 2**20:.0f}"


def print_columns(
    console: Console,
    keys: Sequence[Column],
    columns: Sequence[Column],
    *,
    title: str | None = None,
    caption: str | None = None,
    styles: Sequence[str | None] | None = None,
    ends: Collection[int] = (),
) -> None:
    """Print a table, or several with the same rows where one would be wider than the terminal.

    keys: what tells rows apart, repeated in each of them. styles: one a row; ends: rows that end a section.
    """
    if title is not None:
        console.print(title, style="italic", highlight=False, markup=False)
    room = console.width - 2  # beside the edges
    beside_all = (room - _width(columns)) // len(keys) - 1
    beside_one = (room - max(column.width for column in columns)) // len(keys) - 1
    widths = [min(key.width, max(1, min(beside_one, max(KEY, beside_all)))) for key in keys]
    for part in _parts(columns, room - sum(width + 1 for width in widths)):
        table = Table(box=box.SIMPLE_HEAD, padding=0)
        for column, width in zip([*keys, *part], [*widths, *(c.width for c in part)], strict=True):
            table.add_column(column.heading, justify=column.justify, width=width, overflow="fold")
        for row in range(len(keys[0].cells)):
            cells = [column.cells[row] for column in (*keys, *part)]
            table.add_row(
                *map(_text, cells),
                style=styles[row] if styles else None,
                end_section=row in ends,
            )
        console.print(table)
    if caption is not None:
        console.print(caption, style="dim italic", highlight=False, markup=False)


def _width(columns: Sequence[Column]) -> int:
    """With a space between them."""
    return sum(column.width + 1 for column in columns) - 1


def _parts(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """The columns, in lots that fit in the room beside the keys."""
    part: list[Column] = []
    for column in columns:
        if part and _width([*part, column]) > room:
            yield part
            part = []
        part.append(column)
    yield part
