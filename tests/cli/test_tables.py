"""What measurements print in a terminal of 80 columns, and the line that says what they found."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from outrider.cli.report import print_headline
from outrider.measurement.bench import BenchRound, Result, Run
from outrider.outputs import CompletionOutput, RequestMetrics, RequestOutput, SpeculationStats
from tests.cli.terminal import run_in_terminal

HEADLINE = r"\d+\.\d\dx( faster|: slower|: as fast), {0}/{0} identical(; .*slower)? $"
BRIEF = ["--max-tokens", "4", "-d", "ngram", "-k", "3"]


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["demo", *BRIEF], HEADLINE.format(5)),
        (["bench", *BRIEF, "--prompts", "p.jsonl", "--rounds", "1", "-v"], HEADLINE.format(1)),
        (["plan", "--no-bandwidth"], "outrider serve model -d suffix $"),
        (["models"], "Here: "),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_in_a_terminal(
    arguments: list[str], ending: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.jsonl").write_text('{"category": "qa", "turns": ["the end on the end"]}')
    (tmp_path / "model").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    terminal = run_in_terminal(*arguments, *([] if arguments == ["models"] else ["-m", "model"]))
    assert terminal.widest <= 80
    assert "…" not in terminal.text
    assert re.search(ending, " ".join(terminal.lines))


def result(category: str, speedup: float, *, batch_size: int = 1, identical: bool = True) -> Result:
    """Of one round in which one output of ten tokens took a second without speculation."""

    def run(seconds: float, first: int) -> Run:
        tokens = (first, *range(9))
        completion = CompletionOutput(0, "", tokens, None, None, "length", None, SpeculationStats())
        metrics = RequestMetrics(0.0, None, None, None, None, ())
        output = RequestOutput("", None, (1,), None, (completion,), True, 0, metrics)
        return Run((output,), seconds)

    rounds = (BenchRound(run(1.0, 1), run(1 / speedup, 1 if identical else 2)),)
    return Result(batch_size, category, 0.0, rounds)


def test_decoding_leaves_prompts_out() -> None:
    """Five tokens: the first after a second, the others in 0.4 s or in 0.1 s."""

    def run(decoding: float) -> Run:
        completion = CompletionOutput(0, "", tuple(range(5)), None, None, "length", None, SpeculationStats())
        metrics = RequestMetrics(0.0, None, 1.0, 1.0 + decoding, None, ())
        output = RequestOutput("", None, (1,), None, (completion,), True, 0, metrics)
        return Run((output,), 1.0 + decoding)

    measured = Result(1, "all", 0.0, (BenchRound(run(0.4), run(0.1)),))
    assert measured.decoding_speedup == pytest.approx(4)
    assert measured.speedup == pytest.approx(1.4 / 1.1)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([result("all", 1.376), result("code", 1.5)], ["1.38x faster, 1/1 identical"]),
        (
            [result("all", 1.2), result("summary", 0.97), result("open", 0.994), result("json", 0.996)],
            ["1.20x faster, 1/1 identical; summary 0.97x: slower; open 0.99x: slower"],
        ),
        ([result("all", 0.8, identical=False)], ["0.80x: slower, 0/1 identical"]),
        ([result("all", 1.001)], ["1.00x: as fast, 1/1 identical"]),
        (
            [result("all", 2.0), result("all", 0.9, batch_size=4), result("qa", 0.9, batch_size=4)],
            [
                "batch 1: 2.00x faster, 1/1 identical",
                "batch 4: 0.90x: slower, 1/1 identical; qa 0.90x: slower",
            ],
        ),
    ],
)
def test_the_headline(results: list[Result], said: list[str]) -> None:
    file = io.StringIO()
    print_headline(Console(file=file, width=80), results)
    assert file.getvalue().splitlines() == said
