"""`outrider tune`, and the options that came with automatic draft lengths."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from outrider import LLM
from outrider.cli.app import app, main
from tests.planted import believe_drafts

SMALL = ["--max-tokens", "6", "--rounds", "2"]


@pytest.fixture(autouse=True)
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go to a folder of the test, measured costs too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert result.exit_code == status, result.output
    return result


def write_prompts(*lines: dict[str, Any]) -> str:
    path = Path("prompts.jsonl")
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_json_and_files(target: str, draft: str) -> None:
    prompts = write_prompts(
        {"category": "qa", "turns": ["the end", "on"]},
        {"category": "math", "turns": ["in"]},
        {"category": "qa", "turns": ["at"]},
    )
    result = run(
        "tune", "--model", target, "-d", "ngram", "-d", draft, "--prompts", prompts, "-k", "4", "-k", "2",
        "-b", "2", "-b", "1", *SMALL, "--picture", "a.svg", "--output", "b.json", "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert json.loads(Path("b.json").read_text()) == report
    assert "<svg" in Path("a.svg").read_text()
    assert report.keys() == {"model", "speculative_model", "device", "settings", "results"}
    assert report["speculative_model"] == ["suffix", draft]
    assert report["settings"]["speculative"]["num_speculative_tokens"] == "auto"
    results = report["results"]
    assert [(r["batch_size"], r["category"]) for r in results] == [
        (size, category) for size in (1, 2) for category in ("all", "qa", "math")
    ]
    # Turns in 2 rounds; with a batch size of 2 the one conversation of "math" is run twice.
    counts = {1: {"all": 8, "qa": 6, "math": 2}, 2: {"all": 10, "qa": 6, "math": 4}}
    for row in results:
        assert row.keys() == {
            "batch_size", "category", "temperature", "lengths", "best_fixed", "auto_over_best_fixed",
            "auto_over_target_only",
        }  # fmt: skip
        lengths = {entry.pop("num_speculative_tokens"): entry for entry in row["lengths"]}
        assert list(lengths) == [0, 2, 4, "auto"]
        fastest = max((0, 2, 4), key=lambda length: lengths[length]["tokens_per_s"])
        assert lengths[row["best_fixed"]]["tokens_per_s"] == lengths[fastest]["tokens_per_s"]
        for entry in lengths.values():
            assert entry["tokens_per_s"] > 0
            assert entry["identical"] == entry["compared"] == counts[row["batch_size"]][row["category"]]
        assert lengths["auto"]["over_target_only"] == row["auto_over_target_only"]
        assert lengths[0]["over_target_only"] == lengths[0]["acceptance_length"] == 1
        assert lengths[0]["mean_draft_length"] == 0 < lengths[2]["mean_draft_length"] <= 2
        assert lengths[4]["acceptance_length"] > 1


def test_table_and_default_files(target: str) -> None:
    """Prompts need no category."""
    prompts = write_prompts({"turns": ["the end"]})
    result = run(
        "tune", "--model", target, "-d", target, "--prompts", prompts, "--max-length", "3", "-b", "1", *SMALL
    )
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "batch 1: tokens/s over draft length" in lines
    assert "0 1 2 3 auto" in lines
    assert sum(line.startswith("all ") for line in lines) == 1
    assert not any(line.startswith("other ") for line in lines)  # the only category is the same as all
    assert any(line.startswith("acceptance length 1.00 2.00 ") for line in lines)
    last = next(line for line in lines if line.startswith("batch 1: best fixed K = "))
    assert last.endswith("x of target-only)")
    assert lines[-1] == "8/8 identical"  # 2 rounds of K = 1, 2, 3 and auto
    assert Path("tune.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path("tune.json").read_text())["settings"]["rounds"] == 2


def test_a_difference_makes_it_fail(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a rule that lets every draft stand."""
    believe_drafts(monkeypatch)
    result = run(
        "tune",
        "--model",
        target,
        "-s",
        "prompt_lookup_min=1",
        "-k",
        "3",
        "-b",
        "1",
        *SMALL,
        "--json",
        status=1,
    )
    assert "outputs differ from those of the target alone" in " ".join(result.stderr.split())
    total = json.loads(result.stdout)["results"][0]
    fixed = next(entry for entry in total["lengths"] if entry["num_speculative_tokens"] == 3)
    assert fixed["identical"] < fixed["compared"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tune", "--picture", "a.gif"], "picture 'a.gif': the name has to end in .png or .svg"),
        (["tune", "--output", "no/such/a.json"], "'no/such/a.json' cannot be written: there is no folder"),
        (["tune", "--workload", "poetry"], "'poetry'"),
        (["generate", "x", "-d", "ngram", "-k", "many"], "num_speculative_tokens = 'many': give a number"),
        (["bench", "-k", "-1"], "num_speculative_tokens = '-1': give a number"),
        (["demo", "-d", "ngram", "-d", "ngram"], "the drafter 'suffix' is given twice"),
        (["chat", "-s", "speculative_config={method: ngram}"], "'{method: ngram}' is not JSON (Expecting"),
        (["chat", "-s", "speculative_config=3"], "speculative_config = 3: give a mapping such as"),
        (["serve", "-s", "model=x"], "LLM has no argument 'model'"),
        (
            ["chat", "--max-model-len", "9"],
            "`outrider chat` has no option --max-model-len; give it as -s max_model_len=VALUE",
        ),
        (
            ["bench", "--num-threads=2"],
            "`outrider bench` has no option --num-threads; give it as -s num_threads=VALUE",
        ),
        (
            ["chat", "-m", "big", "-d", "none", "--workload", "creative"],
            "speculative_model = 'none' drafts nothing; drop it, or workload",
        ),
        (
            ["demo", "-d", "ngram", "--draft-quantization", "int4"],
            "draft_quantization = 'int4' is for the weights of a draft",
        ),
        (
            ["bench", "-d", "d", "--draft-quantization", "int5"],
            "draft_quantization = 'int5': input should be",
        ),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And come before anything is loaded."""
    monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert len(error.splitlines()) == 1


def test_without_the_package_that_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    drawing = ("outrider.measurement.picture", "matplotlib")
    for name in [name for name in sys.modules if name.startswith(drawing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["outrider", "tune"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = " ".join(capsys.readouterr().err.split())
    assert "needs the package 'matplotlib', which is not installed" in error
    assert error.endswith("the extra 'plot': pip install 'outrider[plot]'")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["-d", "ngram"], {"speculative_model": "ngram"}),
        (["-d", "ngram", "-d", "draft"], {"speculative_model": ["ngram", "draft"]}),
        (["-m", "big", "--memory-limit", "1GiB"], {"memory_limit": "1GiB", "speculative_model": "auto"}),
        (["-m", "smollm2"], {"speculative_model": "auto"}),
        (["-d", "none"], {"speculative_model": "none"}),
        (["-m", "smollm2", "-s", "speculative_model=ngram"], {"speculative_model": "ngram"}),
        (
            ["-s", 'speculative_config={"method": "ngram", "num_speculative_tokens": 4}'],
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}},
        ),
        (["-d", "ngram", "-k", "3"], {"speculative_model": "ngram", "num_speculative_tokens": 3}),
        (
            ["-d", "ngram", "-k", "auto", "--workload", "creative"],
            {"speculative_model": "ngram", "num_speculative_tokens": "auto", "workload": "creative"},
        ),
        (
            ["-d", "draft", "--draft-quantization", "int4"],
            {"speculative_model": "draft", "draft_quantization": "int4"},
        ),
    ],
)
def test_options_become_those_of_llm(
    arguments: list[str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def built(self: LLM, model: str, **given: Any) -> None:
        assert given.keys() - options == {"engine", "listener"}
        assert {name: given[name] for name in options} == options
        raise Reached

    monkeypatch.setattr(LLM, "__init__", built)
    result = CliRunner().invoke(app, ["generate", "x", *arguments])
    assert isinstance(result.exception, Reached)


def test_verify_takes_a_chain(target: str, draft: str) -> None:
    result = run(
        "verify", "--model", target, "-d", "ngram", "-d", draft, "--chain", "-k", "3", "--temperature", "0",
        "-b", "1", "--max-tokens", "8", "--json",
    )  # fmt: skip
    cases = json.loads(result.stdout)["cases"]
    assert [case["speculative_model"] for case in cases] == [f"suffix, {draft}"]
    assert cases[0]["outcome"] == "equal"


def test_help_names_the_options() -> None:
    result = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--picture" in result.stdout
    assert "structured|creative" in result.stdout
