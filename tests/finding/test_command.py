"""`outrider drafts`: for models on this disk and elsewhere, in words and as JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from outrider.cli.app import app
from outrider.models.checkpoint import open_checkpoint
from tests.cli.terminal import run_in_terminal
from tests.finding.conftest import in_cache, small_model
from tests.models.head_features import random_head


def drafts(*arguments: str, wide: bool = False) -> str:
    result = CliRunner().invoke(app, ["drafts", *arguments], env={"COLUMNS": "1000" if wide else "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(drafts(*arguments, "--json"))
    return report


def test_beside_the_target(target_of_four: Path, hub: Path) -> None:
    model = small_model(target_of_four.with_name("tiny-1l"))
    small_model(target_of_four.with_name("tiny-9l"), extra=("<|more|>",), layers=2)
    report = as_json(str(target_of_four))
    assert report["on_disk"] is True
    assert report["family"] == "Llama"
    assert report["auto"] == ["suffix", str(model)]
    fits, wrong, as_text = report["found"]
    assert (fits["name"], fits["kind"], fits["fits"]) == (str(model), "draft model", True)
    assert 0 < fits["bytes"] <= fits["memory_bytes"]
    assert fits["cache_per_position"] > 0
    assert 0 < fits["read_share"] < 0.5
    assert fits["measured"] is None
    assert (wrong["fits"], "does not share the vocabulary" in wrong["reason"]) == (False, True)
    assert (as_text["fits"], as_text["kind"]) == (True, "draft model of another vocabulary")
    assert report["public"] == []
    assert report["distill"] == f"outrider distill --target {target_of_four} --out {target_of_four}/head"


def test_what_is_suggested_is_found(target_of_four: Path, hub: Path) -> None:
    """A head that is made with the command that is printed is taken by 'auto'."""
    _, _, _, target, _, out = shlex.split(as_json(str(target_of_four))["distill"])
    random_head(Path(out), open_checkpoint(target).config)
    assert as_json(target)["auto"] == ["suffix", out]


def test_in_words(target_of_four: Path, hub: Path) -> None:
    model = small_model(target_of_four.with_name("tiny-1l"))
    said = drafts(str(target_of_four), wide=True)
    assert f"* {model}\n" in said
    assert "draft model beside the target" in said
    assert "not measured" in said
    assert "*: what 'auto' takes" in said
    assert "outrider distill --target" in said


def test_smollm2(hub: Path) -> None:
    report = as_json()
    assert report["model"] == "smollm2"
    assert report["auto"] == ["suffix", "head"]
    (head,) = report["found"]
    assert head["measured"].startswith("acceptance length")
    assert head["taken"] is True
    assert head["weights_bytes"] < head["memory_bytes_of_one"] < 40 * 2**20 < head["memory_bytes"]
    assert head["requests"] > 1
    said = " ".join(drafts("smollm2", wide=True).split())
    assert (
        f"MiB of memory for one request, {head['memory_bytes'] / 2**20:.1f} MiB for {head['requests']}"
        in said
    )
    assert report["distill"].endswith("--out smollm2-head")


def test_a_model_that_is_not_here(hub: Path) -> None:
    """The table alone; the fixture fails whatever would download."""
    report = as_json("Qwen/Qwen3-8B")
    assert (report["on_disk"], report["family"], report["found"]) == (False, "Qwen3", [])
    commands = {draft["repository"]: draft["command"] for draft in report["public"]}
    assert (
        commands["RedHatAI/Qwen3-8B-speculator.eagle3"] == "hf download RedHatAI/Qwen3-8B-speculator.eagle3"
    )
    assert [d["repository"] for d in as_json("Qwen/Qwen3-8B-GGUF:Q4_K_M")["public"]] == [*commands]
    said = drafts("Qwen/Qwen3-8B", wide=True)
    assert "Qwen/Qwen3-8B is not on this disk" in said
    assert "checked on 20" in said
    assert "licence Apache 2.0" in said
    assert "licence on its page" in said


def test_a_model_of_the_hub_that_is_here(hub: Path, target_of_four: Path, tmp_path: Path) -> None:
    in_cache(hub, "org/tiny-4l", target_of_four)
    small = in_cache(hub, "org/tiny-1l", small_model(tmp_path / "small"))
    report = as_json("org/tiny-4l")
    assert report["on_disk"] is True
    assert report["auto"] == ["suffix", str(small)]
    assert report["found"][0]["name"] == "org/tiny-1l"
    assert report["distill"].endswith("--out tiny-4l-head")


def test_a_family_that_nobody_knows(hub: Path) -> None:
    said = drafts("org/unheard-of", wide=True)
    assert "no public draft for this model is known here; lookup works with every model" in said
    assert "outrider distill --target org/unheard-of --out unheard-of-head" in said


def test_kinds_that_this_version_does_not_run_say_so(hub: Path) -> None:
    said = drafts("LiquidAI/LFM2.5-1.2B-Instruct", wide=True)
    assert "DSpark drafter" in said
    assert "this version does not run it" in said


def test_at_80_columns() -> None:
    """Only names and commands, which are to be copied whole, may be longer."""
    terminal = run_in_terminal("drafts", "smollm2")
    long = [line for line in terminal.lines if len(line) > 80]
    assert all(line.strip().startswith(("outrider ", "hf ")) for line in long)


def test_options_of_llm_count(target_of_four: Path, hub: Path) -> None:
    small_model(target_of_four.with_name("tiny-1l"))
    report = as_json(str(target_of_four), "-s", "memory_limit=1MiB", "-s", "speculative_model=ngram")
    assert report["auto"] == ["suffix"]
    assert "MiB with the target" in report["found"][0]["reason"]


def test_a_model_that_does_not_exist(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from outrider import ModelError

    result = CliRunner().invoke(app, ["drafts", "no-such-model"])
    assert isinstance(result.exception, ModelError)
    assert "does not exist" in str(result.exception)


def test_the_command_is_listed() -> None:
    assert "drafts" in typer.main.get_command(app).commands  # type: ignore[attr-defined]
