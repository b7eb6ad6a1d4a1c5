"""Streams on a terminal: no word is cut at its edge."""

from __future__ import annotations

import io
import random

import pytest
from rich.cells import cell_len
from rich.console import Console

from outrider.cli.flow import Flow

WORDS = [
    "a",
    "be",
    "speculation",
    "日本語のテキスト",
    "naïve",
    "e\u0301cole",
    "x" * 50,
    "👩\u200d🚀",
    "-",
    "drafted,",
]


def flowed(pieces: list[str], width: int) -> list[str]:
    file = io.StringIO()
    flow = Flow(Console(file=file, width=width, force_terminal=True, color_system=None))
    for piece in pieces:
        flow.write(piece)
    flow.end()
    return file.getvalue().removesuffix("\n").split("\n")


def cut(text: str, draw: random.Random) -> list[str]:
    """As tokens cut it: anywhere."""
    pieces = []
    while text:
        at = draw.randint(1, 5)
        pieces.append(text[:at])
        text = text[at:]
    return pieces


@pytest.mark.parametrize("seed", range(30))
def test_words_stay_whole_wherever_tokens_end(seed: int) -> None:
    draw = random.Random(seed)
    width = draw.choice([20, 40, 80])
    words = [word for word in draw.choices(WORDS, k=60) if cell_len(word) <= width]
    lines = flowed(cut(" ".join(words), draw), width)
    assert max(map(cell_len, lines)) <= width
    narrow = [word for word in words if word.isascii()]
    assert [word for line in lines for word in line.split() if word.isascii()] == narrow
    assert "".join(lines).replace(" ", "") == "".join(words)


def test_a_line_is_as_full_as_it_can_be() -> None:
    assert flowed(["one two", " three fo", "ur five"], 13) == ["one two three", "four five"]
    assert flowed(["日本語の", "テキスト"], 7) == ["日本語", "のテキ", "スト"]
    assert flowed(["ab 日本"], 6) == ["ab 日", "本"]


def test_new_lines_and_indents_are_kept() -> None:
    assert flowed(["def f(", "x):\n    ret", "urn x\n\n\ty = 1  \n"], 80) == [
        "def f(x):",
        "    return x",
        "",
        "        y = 1",
        "",
    ]


def test_what_is_wider_than_the_terminal_is_broken() -> None:
    assert flowed(["see " + "x" * 25], 10) == ["see", "x" * 10, "x" * 10, "x" * 5]


def test_nothing_steers_the_terminal() -> None:
    assert flowed(["a\x1b[2Jb\x07\r\x9b1mc"], 80) == ["a[2Jb1mc"]


def test_elsewhere_text_is_as_it_is() -> None:
    file = io.StringIO()
    flow = Flow(Console(file=file, width=10))
    flow.write("a long line\tof text ")
    assert file.getvalue() == "a long line\tof text "
