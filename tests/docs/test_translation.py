"""The Chinese README says what the English one says, as far as a machine can tell: figures, code, links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

import pytest

from tests.docs.documents import ROOT, blocks, tables, tokens

ENGLISH, CHINESE = "README.md", "README.zh-TW.md"
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:[.,]\d+)*")  # a figure, not part of a name such as BF16
CODE = re.compile(r"`[^`]*`")


def sections(document: str) -> list[Counter[str]]:
    """The numbers outside of code, the code within text, and the targets of links, section by section."""
    found = [Counter[str]()]
    for token in tokens(document):
        if token.type == "heading_open":
            found.append(Counter({token.tag: 1}))
        for child in token.children or ():
            if child.type == "text":
                found[-1].update(NUMBER.findall(child.content))
            elif child.type == "code_inline":
                found[-1][f"`{' '.join(child.content.split())}`"] += 1
            elif child.type == "link_open" and str(child.attrs["href"]) not in (ENGLISH, CHINESE):
                found[-1][str(child.attrs["href"])] += 1
    return found


def links(document: str) -> set[str]:
    children = (child for token in tokens(document) for child in token.children or ())
    return {str(child.attrs["href"]) for child in children if child.type == "link_open"}


def test_code_is_the_same() -> None:
    assert [(b.kind, b.text) for b in blocks(ENGLISH)] == [(b.kind, b.text) for b in blocks(CHINESE)]


def test_tables_are_the_same() -> None:
    """Cells of figures and of code to the letter, others by their numbers and their code."""
    english, chinese = tables(ENGLISH), tables(CHINESE)
    assert len(english) == len(chinese) > 0
    for ours, theirs in zip(english, chinese, strict=True):
        assert [len(row) for row in ours.rows] == [len(row) for row in theirs.rows]
        for row, translated in zip(ours.rows, theirs.rows, strict=True):
            for cell, other in zip(row, translated, strict=True):
                if re.search("[a-z]{2}", CODE.sub("", cell)):
                    assert NUMBER.findall(cell) == NUMBER.findall(other), (cell, other)
                    assert CODE.findall(cell) == CODE.findall(other), (cell, other)
                else:
                    assert cell == other


def test_sections_have_the_same_figures_code_and_links() -> None:
    english, chinese = sections(ENGLISH), sections(CHINESE)
    assert len(english) == len(chinese)
    for ours, theirs in zip(english, chinese, strict=True):
        assert (ours - theirs, theirs - ours) == (Counter(), Counter())


@pytest.mark.parametrize(("document", "other"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH)])
def test_links_lead_somewhere(document: str, other: str) -> None:
    """And each of the two to the other."""
    assert other in links(document)
    for link in links(document):
        if "://" not in link:
            assert (ROOT / PurePath(link.partition("#")[0])).exists(), link


@pytest.mark.parametrize("document", [ENGLISH, CHINESE])
def test_a_readme_is_a_door(document: str) -> None:
    """What takes longer to tell stands in the docs."""
    assert len((ROOT / document).read_text(encoding="utf-8").splitlines()) <= 120
