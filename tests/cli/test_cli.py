"""The command line, run as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider import SamplingParams
from outrider.cli.app import app, main
from outrider.measurement.prompts import BUILT_IN
from tests.engine.helpers import load
from tests.planted import believe_drafts


def run(*arguments: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "outrider", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == status, result.stderr
    return result


def test_generate(target: str, draft: str) -> None:
    """--json on stdout is what the API returns."""
    result = run(
        "generate", "the end", "on", "--model", target, "--speculative-model", draft, "-k", "3",
        "--max-tokens", "12", "--json",
    )  # fmt: skip
    first, second = json.loads(result.stdout)
    llm = load(target)
    outputs = llm.generate(["the end", "on"], SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
    for shown, output in zip((first, second), outputs, strict=True):
        assert tuple(shown["token_ids"]) == output.outputs[0].token_ids
        assert shown["text"] == output.outputs[0].text
    assert first["speculation"]["drafted"] > 0


def test_generate_streams_a_prompt_from_stdin(target: str) -> None:
    result = run("generate", "--model", target, "--max-tokens", "5", stdin="the end\n")
    assert result.stdout.endswith("\n")
    assert len(result.stdout) > 1


def test_chat(target: str) -> None:
    result = run(
        "chat", "--model", target, "--speculative-model", "ngram", "--max-tokens", "5", "--seed", "1",
        "--temperature", "0", "-s", "suffix_memory=0", "--json", stdin="the end\n\n/clear\nthe end\n/quit\n",
    )  # fmt: skip
    first, second = [json.loads(line) for line in result.stdout.splitlines()]
    assert first == second
    assert first.keys() == {"answer", "drafted", "accepted"}


def test_verify_passes(target: str, draft: str) -> None:
    result = run(
        "verify", "--model", target, "-d", "ngram", "-d", draft, "-k", "1", "-k", "auto", "--max-tokens", "8",
        "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert len(report["cases"]) == 2 * 2 * 3 * 2  # drafters, lengths, temperatures, batch sizes
    assert {case["outcome"] for case in report["cases"]} == {"equal"}
    assert sum(case["drafted"] for case in report["cases"]) > 0


def test_bench(target: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        {"question_id": 1, "category": "qa", "turns": ["the end", "on"]},
        {"question_id": 2, "category": "math", "turns": ["in"]},
        {"question_id": 3, "category": "qa", "turns": ["at"]},
    ]
    prompts.write_text("\n".join(json.dumps(line) for line in lines))
    result = run(
        "bench", "--model", target, "--prompts", str(prompts), "-b", "1", "-b", "2", "--rounds", "1",
        "--max-tokens", "6", "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report.keys() == {
        "model", "speculative_model", "device", "settings", "peak_memory_bytes", "price_per_hour", "energy",
        "results",
    }  # fmt: skip
    assert [(r["batch_size"], r["category"]) for r in report["results"]] == [
        (size, category) for size in (1, 2) for category in ("all", "qa", "math")
    ]
    # Turns; with a batch size of 2 the one conversation of "math" is run twice.
    counts = {1: {"all": 4, "qa": 3, "math": 1}, 2: {"all": 5, "qa": 3, "math": 2}}
    for row in report["results"]:
        assert row.keys() == {
            "batch_size", "category", "temperature", "target_only", "speculative", "speedup",
            "decoding_speedup", "identical", "compared",
        }  # fmt: skip
        assert row["identical"] == row["compared"] == counts[row["batch_size"]][row["category"]]
        rates = {"tokens_per_s", "ttft_ms", "itl_ms", "joules_per_token", "cost_per_million_tokens"}
        assert row["target_only"].keys() == rates
        assert row["speculative"].keys() == rates | {"acceptance_length", "acceptance_rate_by_position"}
        assert row["target_only"]["tokens_per_s"] > 0


def test_demo(target: str) -> None:
    result = run("demo", "--model", target, "-d", target, "-k", "3", "--max-tokens", "6", "--json")
    report = json.loads(result.stdout)
    total = report["results"][0]
    assert (total["category"], total["identical"], total["compared"]) == ("all", 5, 5)
    assert set(total["speculative"]["acceptance_rate_by_position"]) == {1.0}
    assert re.search(r"\d+\.\d\dx( faster|: slower|: as fast), 5/5 identical", result.stderr)


def test_demo_copies_nothing_from_the_answer_that_it_compares_with(target: str) -> None:
    """The target alone answers first, in the same process: a text to draft from would promise too much."""
    result = run("demo", "--model", target, "-d", "suffix", "-k", "8", "--max-tokens", "24", "--json")
    lengths = {
        row["category"]: row["speculative"]["acceptance_length"]
        for row in json.loads(result.stdout)["results"]
    }
    assert lengths.pop("all") < 4
    llm = load(target, "suffix", num_speculative_tokens=8, suffix_memory=0)
    params = SamplingParams(temperature=0, max_tokens=24)
    for conversation in BUILT_IN:
        (output,) = llm.chat([[{"role": "user", "content": conversation.turns[0]}]], params, use_tqdm=False)
        found = output.outputs[0].speculation.acceptance_length
        assert lengths[conversation.category] == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["generate", "x", "--model", "/no/such/model"], "model '/no/such/model' does not exist"),
        (["generate", "x", "--set", "max_modl_len=5"], "did you mean 'max_model_len'"),
        (["generate", "x", "--top-p", "0"], "top_p = 0"),
        (
            ["generate", "x", "-k", str(2**56)],
            f"num_speculative_tokens = {2**56}: give a number from 0 to 1024",
        ),
        (["verify", "--length", "five"], "'five': give a number from 0 on, or 'auto'"),
        (["bench", "--prompts", "/no/such/file"], "prompts file '/no/such/file' cannot be read"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error


def test_a_difference_makes_verify_fail(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a rule that lets every draft stand."""
    believe_drafts(monkeypatch)
    arguments = ["verify", "--model", target, "-d", "ngram", "-s", "prompt_lookup_min=1", "-k", "3", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--max-tokens", "8"])
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert re.search(r"output position \d+ is \d+ in plain decoding and \d+ with speculation", said)
    report = json.loads(result.stdout)
    assert report["passed"] is False
    assert any(case["outcome"] == "different" for case in report["cases"])


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"outrider {version('outrider')}\n")


INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


SLOW = "import time; print('importing', flush=True); time.sleep(60)"
SWALLOWING = f"""
try:
    {SLOW}
except BaseException as error:
    raise ModuleNotFoundError("tokenizers") from error
"""


@pytest.mark.parametrize("module", [SLOW, SWALLOWING], ids=["slow", "swallowing"])
def test_ctrl_c_during_the_imports(tmp_path: Path, module: str) -> None:
    """In place of a library stands a module that takes a minute, or one that makes it another exception."""
    (tmp_path / "tokenizers.py").write_text(module)
    command = [sys.executable, "-c", f"{INTERRUPTIBLE}from outrider.cli import main; main()", "demo"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "interrupted\n")


@pytest.mark.parametrize("command", ["demo", "generate", "chat", "verify", "bench"])
def test_help_names_every_option(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--model" in result.stdout
    assert "--json" in result.stdout
