"""`outrider verify` and `tune` over an engine for each draft length; what they say of vLLM."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from outrider import LLM, SamplingParams
from outrider.cli.app import app
from outrider.cluster.vllm import engine
from outrider.errors import ConfigError, ModelError
from outrider.measurement.loads import at_all_lengths, one_by_one
from outrider.measurement.verify import verify
from outrider.training.vllm_teller import extracting, written
from tests.cluster.vllm import fakes
from tests.engine.helpers import PROMPTS

NGRAM: dict[str, Any] = {"speculative_model": "ngram", "prompt_lookup_min": 1, "suffix_memory": 0}


@pytest.fixture
def _vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_one_engine_and_one_for_each_length_find_the_same(target: str) -> None:
    closed: list[LLM] = []

    class Closing(LLM):
        def shutdown(self) -> None:
            closed.append(self)
            super().shutdown()

    settings: dict[str, Any] = {
        "lengths": [1, 3], "temperatures": [0.0, 0.8], "batch_sizes": [2], "max_tokens": 12,
    }  # fmt: skip

    def lay_out(llm: LLM) -> Sequence[Sequence[int]]:
        return PROMPTS

    together = at_all_lengths(LLM(target, device="cpu", num_speculative_tokens="auto", **NGRAM))
    apart = one_by_one(lambda length: Closing(target, device="cpu", num_speculative_tokens=length, **NGRAM))
    found, expected = (
        sorted(verify(loads, "ngram", lay_out, **settings), key=lambda case: (case.length, case.temperature))
        for loads in (apart, together)
    )
    assert [case.outcome for case in found] == ["equal"] * 4
    assert [(case.length, case.drafted, case.accepted) for case in found] == [
        (case.length, case.drafted, case.accepted) for case in expected
    ]
    assert len(closed) == 3  # one of them drafted nothing


VERIFY = ("-d", "ngram", "--temperature", "0", "-b", "2", "--max-tokens", "8", "--json")


@pytest.mark.usefixtures("_vllm")
def test_verify_finds_outputs_of_vllm_equal(target: str) -> None:
    result = run("verify", "--engine", "vllm", "--model", target, *VERIFY)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["passed"]) == (0, True)
    assert [case["num_speculative_tokens"] for case in report["cases"]] == [1, 4]
    assert all(case["drafted"] for case in report["cases"])


@pytest.mark.usefixtures("_vllm")
def test_verify_says_which_outputs_of_vllm_differ_and_where(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: with drafts it goes on otherwise after two tokens."""
    made = fakes.LLMEngine.__init__

    def otherwise(self: Any, arguments: Any, stat_loggers: Any) -> None:
        made(self, arguments, stat_loggers)
        self.says = (30, 31, 32) if self.length is None else (30, 31, 77)

    monkeypatch.setattr(fakes.LLMEngine, "__init__", otherwise)
    result = run("verify", "--engine", "vllm", "--model", target, "-k", "2", *VERIFY)
    (case,) = json.loads(result.stdout)["cases"]
    assert result.exit_code == 1
    assert len(case["differences"]) == case["prompts"]
    assert {(d["position"], d["plain"], d["speculative"]) for d in case["differences"]} == {(2, 32, 77)}


@pytest.mark.usefixtures("_vllm")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-k", "auto", "-d", "ngram"), "give a number"),
        (("-k", "2"), "name one, for example 'ngram'"),
        (("-k", "2", "-d", "none"), "name a drafter"),
    ],
)
def test_what_vllm_cannot_be_measured_with(target: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("verify", "--engine", "vllm", "--model", target, "--max-tokens", "2", *arguments)


@pytest.mark.usefixtures("_vllm")
def test_a_build_that_draws_wrong_tokens_beside_drafts_is_asked_for_none(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "samples_beside_drafts", lambda device: False)
    sampled = SamplingParams(temperature=0.7, max_tokens=3)
    plain = LLM(target, engine="vllm")
    assert len(plain.generate(PROMPTS[0], sampled, use_tqdm=False)[0].outputs[0].token_ids) == 3
    drafting = LLM(target, engine="vllm", speculative_model="ngram", num_speculative_tokens=2)
    with pytest.raises(ConfigError, match=r"temperature = 0\.7: this build of vLLM draws wrong tokens"):
        drafting.generate(PROMPTS[0], sampled, use_tqdm=False)


@pytest.mark.usefixtures("_vllm")
def test_tune_writes_the_command_that_serves_with_what_it_found(target: str) -> None:
    pytest.importorskip("matplotlib")
    result = run(
        "tune", "--engine", "vllm", "--model", target, "-d", "ngram", "-k", "2", "-b", "1", "-b", "2",
        "-s", "max_model_len=512", "-s", "kv_cache_memory=2MiB", "--max-tokens", "6",
        "--rounds", "2", "--limit", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(Path("tune.json").read_text())
    words = shlex.split(report["serve"])
    assert words[:5] == ["vllm", "serve", target, "--max-model-len", "512"]
    assert words[5:7] == ["--kv-cache-memory-bytes", str(2 * 2**20)]  # by vLLM's name, as it reads it
    best = {row["batch_size"]: row["best_fixed"] for row in report["results"] if row["category"] == "all"}
    if any(best.values()):
        assert json.loads(words[-1])["num_speculative_tokens"] == 2
    for row in report["results"]:
        assert [entry["num_speculative_tokens"] for entry in row["lengths"]] == [0, 2]
        assert "auto_over_best_fixed" not in row
    assert "vllm serve" in result.stdout.replace("\n", " ")


def ticks() -> Iterator[float]:
    yield from range(1000)


def test_states_are_waited_for(tmp_path: Path) -> None:
    def write(seconds: float) -> None:
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors").touch()

    assert len(written(tmp_path, 3, wait=write)) == 3


def test_states_that_do_not_come_are_no_endless_wait(tmp_path: Path) -> None:
    clock = ticks()
    with pytest.raises(ModelError, match="0 requests into"):
        written(tmp_path, 2, wait=lambda seconds: None, clock=lambda: next(clock))


def test_layers_to_extract_go_by_vllms_name() -> None:
    config = extracting((2, 5, 8))["draft_model_config"]["hf_config"]
    assert config == {"eagle_aux_hidden_state_layer_ids": [2, 5, 8]}
