"""Tables that a run is rendered into, at their place in a page."""

from __future__ import annotations


def placed(text: str, table: str, name: str) -> str:
    """A page's text with the table between its marks, which are MkDocs' own of a section of this name. Raises
    ValueError if they are not there."""
    start, end = (f"<!-- --8<-- [{mark}:{name}] -->\n" for mark in ("start", "end"))
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}{table}{end}{after}"
