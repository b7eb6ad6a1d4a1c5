"""The page on drafters has the table that `outrider drafts` prints from."""

from __future__ import annotations

from outrider.finding.public import KINDS, PublicDraft, public_table
from tests.docs.documents import tables


def test_public_drafts() -> None:
    (told,) = (
        table
        for table in tables("docs/drafters.md")
        if table.rows[0][0] == "target" and "hub" in table.rows[0][1]
    )
    assert [tuple(cell.replace("`", "") for cell in row) for row in told.rows[1:]] == [
        (
            ", ".join(draft.targets),
            draft.repository,
            KINDS[draft.kind],
            size(draft),
            draft.licence or "see its page",
        )
        for draft in public_table().draft
    ]


def size(draft: PublicDraft) -> str:
    if draft.parameters is not None:
        return f"{draft.parameters / 1e9:g} B parameters"
    return "not told" if draft.bytes is None else f"{draft.bytes / 1e6:.0f} MB"
