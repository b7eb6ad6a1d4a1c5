"""`outrider plan`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from outrider.cli.app import app, main
from outrider.models.folder import FolderCheckpoint
from tests.cli.test_cli import run


def plan(target: str, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", "--model", target, "--json", "--no-bandwidth", *arguments])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_json(target: str, draft: str) -> None:
    report = plan(target, "--memory", "100GiB", "-d", draft, "--max-model-len", "300", "--max-num-seqs", "3")
    assert report["memory_bytes"] == 100 * 2**30
    assert report["read_bandwidth_bytes_per_s"] is None
    assert report["recommended"] == {"speculative_model": draft}
    assert report["fastest"] == {"quantization": "int4", "speculative_model": draft}
    choices = {(c["format"], c["drafter"]): c for c in report["choices"]}
    formats = ("as stored", "bfloat16", "int8", "int4")
    assert list(choices) == [(f, d) for f in formats for d in (draft, "ngram", "none")]
    for choice in choices.values():
        assert choice["fits"] is True
        assert choice["context"] == 300
        assert choice["requests_at_once"] == choice["full_requests_at_once"] == 3
        sizes = choice["bytes"]
        parts = sum(sizes[part] for part in ("runtime", "target", "draft", "activations"))
        assert sizes["peak"] >= parts + 3 * 300 * sizes["cache_per_position"]
    assert choices["int8", draft]["bytes"]["draft"] == choices["int8", "none"]["bytes"]["target"]


def test_no_weight_is_read(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Any, tensor: Any) -> NoReturn:
        raise AssertionError(f"{tensor} was read")

    monkeypatch.setattr(FolderCheckpoint, "weight", read)
    monkeypatch.setattr(FolderCheckpoint, "floats", read)
    assert plan(target, "--memory", "100GiB")["choices"]


def test_table_and_recommendation(target: str) -> None:
    result = run("plan", "--model", target, "--memory", "100GiB")
    assert "GB/s" in result.stdout
    assert "recommended, since it loses least: as stored with drafter ngram" in result.stdout
    assert "fastest that fits: int4 with drafter ngram (quantization='int4'" in result.stdout


def test_less_than_the_process_takes(target: str) -> None:
    result = run("plan", "--model", target, "--memory", "10MiB", status=2)
    error = " ".join(result.stderr.split())
    assert error.startswith("error: --memory = 10485760 bytes (10 MiB) is less than what this process takes")
    assert "Python and libraries" in error


def test_nothing_fits(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.planning.limit.process_bytes", lambda: 2**20)
    arguments = ["plan", "--model", target, "--memory", "2MiB", "--no-bandwidth"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "not measured" in " ".join(result.output.split())
    assert "recommended" not in result.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--memory", "0"], "--memory = '0': input should be greater than 0"),
        (["--memory", "12QB"], "--memory = '12QB': give bytes as a number or as in '512MiB'"),
        (["--memory", "1GiB", "--model", "nowhere"], "model 'nowhere' does not exist"),
        (["--memory", "1GiB", "-d", "nowhere"], "model 'nowhere' does not exist"),
    ],
)
def test_bad_input(
    target: str,
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = [] if "--model" in arguments else ["--model", target]
    monkeypatch.setattr("sys.argv", ["outrider", "plan", *model, *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert named in " ".join(capsys.readouterr().err.split())
