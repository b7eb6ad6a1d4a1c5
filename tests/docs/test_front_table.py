"""The README's table is what the committed run renders to, and the run is counted rightly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.front_table import LANGUAGES, MARKS, Language, entry, read_run, render
from benchmarks.marks import placed
from benchmarks.peers.measure import Measured, Result, Skipped
from tests.docs.documents import ROOT

ALONE = Result("outrider", False, "0.1", 1.0, [10.0, 20.0, 30.0], [1.0] * 3, [(1, 2), (3, 4)])
DRAFTED = Result("outrider", True, "0.1", 1.0, [20.0, 30.0, 90.0], [], [(1, 2), (3, 5)])
THEIRS = Result("llama.cpp", False, "b1", 1.0, [8.0, 10.0, 9.0], [1.0] * 3, [(1, 2), (3, 4)])
LOOKUP = Result("llama.cpp", True, "b1", 1.0, [5.0, 5.0, 5.0], [], [(1, 2), (3, 4)])


def measured(*results: Result) -> Measured:
    skipped = [] if THEIRS in results else [Skipped("llama.cpp", False, "not installed")]
    return Measured(list(results), skipped, 0.1, 2e10, 10**8)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.readme)
def test_the_table_is_that_of_the_run(language: Language) -> None:
    """If not: python -m benchmarks.front_table."""
    text = (ROOT / language.readme).read_text(encoding="utf-8")
    assert text == placed(text, render(read_run(), language), MARKS)


def test_a_row_counts_within_rounds() -> None:
    row = entry("model", ["ngram"], measured(ALONE, DRAFTED, THEIRS, LOOKUP))
    assert (row.plain, row.speculative, row.speedup) == (20.0, 30.0, 2.0)
    assert (row.identical, row.prompts) == (1, 2)
    assert (row.peer, row.over_peer) == (9.0, 3.0)


def test_without_the_other_engine_its_columns_are_left_out() -> None:
    row = entry("model", ["ngram", "file.gguf"], measured(ALONE, DRAFTED))
    run = replace(read_run(), entries=(row,))
    for language in LANGUAGES:
        heading, _, cells, *_ = table = render(run, language).splitlines()
        assert heading.count("|") == cells.count("|") == len(language.headings) + 1
        assert language.draft_model in cells
        assert table[-1].endswith(language.without_peer)


def test_marks_that_are_missing_are_no_place() -> None:
    with pytest.raises(ValueError, match="unpack"):
        placed("a README", "| table |", MARKS)
