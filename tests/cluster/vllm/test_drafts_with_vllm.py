"""Heads, drafts and training data with vLLM itself, where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.cli.app import app
from outrider.cluster.vllm.faults import samples_beside_drafts
from outrider.cluster.vllm.parameters import checked
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.errors import ConfigError
from outrider.models.head_checkpoint import HeadCheckpoint, quantized, save_head
from outrider.training import conversations
from outrider.training.distill import distill
from outrider.training.recorder import Recording, StateRecorder
from outrider.training.settings import DistillConfig, Pace
from outrider.training.vllm_teller import VllmTeller
from tests.factories import tiny_config, write_model
from tests.heads import write_head

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-env` makes an environment with it")
# A process that imports vLLM takes a minute where others compute.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("one_thread")]

SMALL: dict[str, Any] = {
    "enforce_eager": True,
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 512,
    "kv_cache_memory": "32MiB",
}
OPTIONS = [word for name, value in SMALL.items() for word in ("-s", f"{name}={value}")]
PROMPTS = [(5, 6, 7, 5, 6, 7, 5, 6), (10, 20, 30), (40, 41, 42, 43, 40, 41), (9, 8), (100, 3, 50, 60)]
GREEDY = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
LENGTH = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its heads have a size that vLLM's kernels for the CPU take."""
    path: Path = tmp_path_factory.mktemp("vllm") / "model"
    write_model(path, tiny_config(hidden_size=128, head_dim=32))
    return str(path)


@pytest.fixture(scope="module")
def small_head(model: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> str:
    """A head of the model in 4 bits, trained well enough to be right now and then."""
    plain, small = (tmp_path_factory.mktemp(name) for name in ("plain", "small"))
    write_head(plain, model)
    head = HeadCheckpoint(plain)
    floats = {name: tensor.floats() for name, tensor in head.stored.items() if name not in ("d2t", "t2d")}
    save_head(small, head.config, quantized(floats), head.targets())
    return str(small)


def acceptance(llm: LLM) -> SpeculationStats:
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    return sum((output.outputs[0].speculation for output in outputs), SpeculationStats())


def test_a_head_is_accepted_as_often_as_on_our_engine(
    model: str, small_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    options: dict[str, Any] = {"speculative_model": small_head, "num_speculative_tokens": LENGTH}
    ours = acceptance(LLM(model, device="cpu", dtype="float32", **options))
    with LLM(model, engine="vllm", **options, **SMALL) as llm:
        theirs = acceptance(llm)
    assert ours.accepted > 0
    assert theirs.acceptance_length == pytest.approx(ours.acceptance_length, rel=0.1)


def test_the_call_of_an_older_script_runs(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    with (
        pytest.warns(UserWarning, match="use_v2_block_manager"),
        LLM(
            model=model,
            speculative_model=model,
            num_speculative_tokens=5,
            use_v2_block_manager=True,
            engine="vllm",
            **SMALL,
        ) as llm,
    ):
        assert acceptance(llm).acceptance_length > 5  # it drafts for itself


def test_verify_reports(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    command = ["verify", "--engine", "vllm", "--model", model, "-d", "ngram", "-k", "3", "--temperature", "0"]
    result = CliRunner().invoke(
        app,
        [*command, "-b", "4", "--max-tokens", "16", *OPTIONS, "-s", "prompt_lookup_min=1", "--json"],
        catch_exceptions=False,
    )
    (case,) = json.loads(result.stdout[result.stdout.index("{") :])["cases"]
    assert case["drafted"] > 0
    assert result.exit_code == bool(case["differences"])


def recorded(model: str, layers: tuple[int, ...], tokens: list[int]) -> torch.Tensor:
    """Our engine's states of these tokens; [tokens, layers * hidden]."""
    recorder = StateRecorder(layers)
    engine = build_engine(
        resolve(model, device="cpu", dtype="float32", enable_prefix_caching=False), observer=recorder
    )
    engine.add(tokens, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    while engine.unfinished:
        engine.step()
    (recording,) = recorder.take()
    return recording.states[: len(tokens)].float()


def test_states_are_those_of_our_engine(model: str, tmp_path: Path) -> None:
    layers = (0, 1, 2)
    config = DistillConfig(target=model, out=tmp_path, engine="vllm", engine_options=SMALL)
    teller = VllmTeller(config, layers, Pace(sequences=4, turn=16), tmp_path / "told")
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompts = ["the end of", "once upon"]
    texts = teller.tell(prompts, [params, params])
    told: list[Recording] = sorted(teller.take(), key=lambda recording: recording.own)
    teller.close()
    plain = LLM(model, device="cpu", dtype="float32").generate(prompts, params, use_tqdm=False)
    assert texts == [output.outputs[0].text for output in plain]
    assert len(told) == 2
    for recording in told:
        assert recording.own >= 1
        assert len(recording.tokens) == recording.own + 11  # the last token was never read
        ours = recorded(model, layers, list(recording.tokens))
        torch.testing.assert_close(recording.states.float(), ours, rtol=0.05, atol=0.05)


def test_a_temperature_beside_drafts_is_refused_where_vllm_gets_it_wrong(model: str) -> None:
    """It fails once vLLM's build for the CPU is right; `faults.py` and what it is for can go then."""
    assert not samples_beside_drafts("cpu")
    with pytest.raises(ConfigError, match="draws wrong tokens"):
        checked(SamplingParams(temperature=0.7), LENGTH, samples=samples_beside_drafts("cpu"))


class Silent:
    def data(self, tokens: int, total: int) -> None: ...

    def trained(self, steps: int, total: int, loss: float) -> None: ...

    def scored(self, score: Any) -> None: ...

    def measured(self, shape: str, tokens_per_s: float) -> None: ...


def test_a_head_is_distilled_of_what_vllm_told(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy, since vLLM 0.32's build for the CPU draws wrong tokens otherwise."""
    monkeypatch.setattr(conversations, "TEMPERATURES", (0.0,))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the end\n\nonce upon a time\n\non and on\n\nin the house")
    config = DistillConfig(
        target=model, out=tmp_path / "out", engine="vllm", engine_options=SMALL, tokens=600, prompts=prompts,
        draft_vocab_size=(64,), unrolled=(1,), device="cpu",
    )  # fmt: skip
    score = distill(config, Silent(), Pace(sequences=8, turn=24))
    assert score.greedy.length >= 1
    llm = LLM(model, device="cpu", speculative_model=str(tmp_path / "out"), num_speculative_tokens=2)
    assert acceptance(llm).drafted > 0
