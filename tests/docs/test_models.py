"""The page that says what runs says what the code says."""

from __future__ import annotations

from outrider.models.catalogue import families, formats
from outrider.models.gguf_substitutes import SUBSTITUTES
from outrider.models.registry import WITH_IMAGES
from outrider.models.rope import KINDS
from outrider.models.schemes import SCHEMES
from tests.docs.documents import code_in_prose, tables

PAGE = "docs/models.md"


def rows(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table whose first column has this heading, without the marks of code."""
    (table,) = (table for table in tables(PAGE) if table.rows[0][0] == heading)
    return [tuple(cell.replace("`", "") for cell in row) for row in table.rows[1:]]


def test_families() -> None:
    assert rows("family") == [(row.name, row.architecture, row.gguf) for row in families()]


def test_formats() -> None:
    assert rows("format") == [(row.name, f"{row.bits:g}", row.comes_from) for row in formats()]


def test_substitutes() -> None:
    told = {name: becomes for names, becomes in rows("type in the file") for name in names.split(", ")}
    assert told == SUBSTITUTES


def test_schemes() -> None:
    assert [method for method, _ in rows("`quant_method`")] == [*SCHEMES]


def test_models_that_read_images_and_ropes_are_named() -> None:
    assert {*WITH_IMAGES, *KINDS} - {"default", "divisors"} <= {*code_in_prose(PAGE)}
