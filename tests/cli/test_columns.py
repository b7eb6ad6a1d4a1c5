"""Tables at the width of usual and of narrow terminals: every heading and every value is there."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from outrider.cli.app import app
from outrider.cli.columns import Column, print_columns

WIDTHS = [60, 80, 200]
RESULTS = "batch category target speculative speed-up identical"
DETAILS = f"{RESULTS} acceptance length by position"
SMALL = ["--max-tokens", "4", "--rounds", "1"]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_value_is_there(width: int) -> None:
    file = io.StringIO()
    keys = [Column("batch", ["1", "16"]), Column("category", ["math_reasoning", "[b]x"], "left")]
    columns = [Column(f"heading number {n}", [f"{n}.{n}{n}", f"{n} {n} > {n}{n}"]) for n in range(100, 115)]
    print_columns(Console(file=file, width=width), keys, columns, title="a title", caption="a caption")
    lines = file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    rows = [" ".join(line.split()) for line in lines]
    first, second = ([row for row in rows if row.startswith(start)] for start in ("1 math_r", "16 [b]x"))
    assert len(first) == len(second) == sum("batch" in row for row in rows)
    for n in range(100, 115):
        assert sum(f"{n}.{n}{n}" in row for row in first) == 1
        assert sum(f"{n} {n} > {n}{n}" in row for row in second) == 1
    assert (rows[0], rows[-1]) == ("a title", "a caption")


def test_a_long_name_is_folded() -> None:
    file, name = io.StringIO(), "a/path/that/nobody/can/read" * 3
    numbers = [Column("length", ["auto"]), Column("accepted", ["123/4567"])]
    print_columns(Console(file=file, width=60), [Column("drafter", [name], "left")], numbers)
    lines = file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 60
    assert "".join(line.split()[0] for line in lines if "/" in line) == name


@pytest.mark.parametrize("width", WIDTHS[:2])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--max-tokens", "4"], RESULTS),
        (["demo", "--max-tokens", "4", "-v"], DETAILS),
        (["bench", *SMALL, "--price-per-hour", "1"], f"{RESULTS} cost with speculation energy"),
        (["bench", *SMALL, "-v"], f"{DETAILS} TTFT ITL"),
        (["tune", *SMALL, "-b", "1"], "0 1 2 3 4 5 6 7 8 auto acceptance length"),
        (
            ["verify", "-k", "1", "--max-tokens", "4"],
            "drafter temperature batch lengths accepted tokens equal",
        ),
        (
            ["verify", "-k", "1", "--max-tokens", "4", "-v"],
            "drafter temperature batch length accepted tokens equal",
        ),
        (["plan", "--no-bandwidth"], "weights drafter needs context requests tokens/s"),
        (
            ["plan", "--memory", "100GiB", "-v"],
            "weights drafter target draft passes K/V needs context in all requests tokens/s",
        ),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_commands(
    arguments: list[str], words: str, width: int, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "p.jsonl").write_text('{"category": "summarization", "turns": ["the end on the end on"]}')
    prompts = [] if arguments[0] in ("demo", "plan") else ["--prompts", "p.jsonl"]
    drafter = ["-d", "ngram", "-s", "prompt_lookup_min=1"]
    command = [arguments[0], "--model", target, *drafter, *prompts, *arguments[1:]]
    result = CliRunner().invoke(app, command, env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "─" not in line]  # rules cut prompts off
    assert not any("…" in line for line in lines)
    assert set(words.split()) <= set(result.stdout.split())
    if arguments[0] == "bench":
        of_summaries = [
            line.split()
            for line in result.stdout.splitlines()
            if "summarization " in line and ";" not in line
        ]
        assert sum("1/1" in line for line in of_summaries) == 1
        assert all(len(line) > 2 for line in of_summaries)
