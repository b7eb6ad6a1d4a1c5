"""The README and the pages of the site, taken apart by the same rules that show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

# Set off by indentation instead of a fence, code has no kind, and nobody sees that it is not run.
INDENTED = "(indented)"


@dataclass(frozen=True)
class Block:
    """A block of code. kind: what its fence names; line: of its first line, from 1."""

    document: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Table:
    """Cells in rows, the heading first, as they are written."""

    rows: tuple[tuple[str, ...], ...]


def tokens(document: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / document).read_text(encoding="utf-8"))


def blocks(document: str) -> list[Block]:
    """Its blocks of code, in order."""
    found = []
    for token in tokens(document):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            kind = token.info.strip() if token.type == "fence" else INDENTED
            line = token.map[0] + (2 if token.type == "fence" else 1)
            found.append(Block(document, line, kind, token.content))
    return found


def inline(document: str) -> Iterator[Token]:
    """What stands within its paragraphs, cells and headings: text, code, links."""
    for token in tokens(document):
        yield from token.children or ()


def code_in_prose(document: str) -> list[str]:
    """What stands between backticks; a line's end within is a space."""
    return [" ".join(token.content.split()) for token in inline(document) if token.type == "code_inline"]


def tables(document: str) -> list[Table]:
    found: list[Table] = []
    rows: list[list[str]] = []
    for token in tokens(document):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level >= 4:
            rows[-1].append(token.content)
        elif token.type == "table_close":
            found.append(Table(tuple(tuple(row) for row in rows)))
            rows = []
    return found
