"""`outrider plan`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
import shlex
from typing import Any, NoReturn

import pytest
import typer
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
    assert list(choices) == [(f, d) for f in formats for d in (draft, "suffix", "none")]
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
    assert "recommended, since it loses least: as stored with drafter suffix" in result.stdout
    assert "fastest that fits: int4 with drafter suffix (quantization='int4'" in result.stdout


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


def test_the_commands_to_copy(target: str) -> None:
    """They are understood, and mean what was planned."""
    options = ["--memory", "100GiB", "-d", "ngram", "-k", "3", "--max-model-len", "300", "-s", "seed=1"]
    result = CliRunner().invoke(app, ["plan", target, "--no-bandwidth", *options])
    assert result.exit_code == 0, result.output
    rest = f"{target} -d suffix -k 3 -s seed=1 -s max_model_len=300 -s memory_limit=100GiB"
    told = [line.strip() for line in result.stdout.splitlines() if " outrider " in line]
    assert told == [f"to talk with it: outrider run {rest}", f"to serve it:     outrider serve {rest}"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in told:
        _, name, *arguments = shlex.split(line.partition(": ")[2])
        given = commands[name].make_context(name, arguments).params
        assert given["setting"] == ["seed=1", "max_model_len=300", "memory_limit=100GiB"]
        assert (given["speculative_model"], given["num_speculative_tokens"]) == (["suffix"], "3")


def test_it_is_for_this_machine_unless_told(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.planning.limit.free_bytes", lambda: 2**40)
    report = plan(target)
    assert 2**40 < report["memory_bytes"] < 2**40 + 2**34


def test_each_size_has_a_speed_of_its_own(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights lie in caches in part: memory alone would allow less than `bench` measures."""
    asked: set[int] = set()

    def measure(sizes: set[int]) -> dict[int, float]:
        asked.update(sizes)
        return {size: 1e9 + size for size in sizes}

    monkeypatch.setattr("outrider.planning.bandwidth.read_bandwidths", measure)
    result = CliRunner().invoke(app, ["plan", target, "--memory", "100GiB", "--json"])
    report = json.loads(result.stdout)
    speeds = {choice["format"]: choice["tokens_per_s_at_most"] for choice in report["choices"]}
    assert len(asked) == len(speeds)
    assert sorted(speeds.values()) == sorted((1e9 + size) / size for size in asked)
