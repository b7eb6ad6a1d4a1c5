"""A tiny model through `LLM` on the GPU's kernels: the reference's tokens, and the same with any draft."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from outrider import LLM, ConfigError, SamplingParams, SpeculationStats
from outrider.engine import backend
from outrider.extras import CUDA
from outrider.ops.cuda import device as device_module
from outrider.ops.cuda.device import LaunchRecorder
from outrider.ops.cuda.layout import RowLayout
from tests.factories import write_noisy_copy
from tests.models.factories import write_hf
from tests.models.families.table import DELTA, config
from tests.ops.cuda import DEVICE

Kernels = Literal["triton", "torch"]
KERNELS: tuple[Kernels, ...] = ("triton", "torch")
PROMPTS = ((10, 20), (5, 6, 7, 5), tuple(range(20, 30)))
OPTIONS: dict[str, Any] = {
    "device": DEVICE,
    "max_num_seqs": 4,
    "max_model_len": 64,
    "kv_cache_memory": 2**20,
    "enable_prefix_caching": False,
}


@cache
def loaded(target: str, kernels: Kernels, drafter: str = "none") -> LLM:
    length: dict[str, Any] = {} if drafter == "none" else {"num_speculative_tokens": 3}
    return LLM(target, backend=kernels, speculative_model=drafter, **length, **OPTIONS)


def requests(count: int) -> list[SamplingParams]:
    """Greedy, and drawn from all or from some tokens."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.8},
        {"temperature": 1.0, "top_k": 20, "top_p": 0.9},
    ]
    return [SamplingParams(seed=n, max_tokens=5, ignore_eos=True, **kinds[n % 3]) for n in range(count)]


def tokens(llm: LLM, prompts: Any, params: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)]


def test_the_tokens_of_the_reference(target: str) -> None:
    found, wanted = (tokens(loaded(target, kernels), PROMPTS, requests(3)) for kernels in ("triton", "torch"))
    assert found == wanted
    assert loaded(target, "triton").engine.facts.exact


@cache
def alone(target: str) -> list[tuple[int, ...]]:
    """Each request by itself, without drafts."""
    plain = loaded(target, "triton")
    return [tokens(plain, prompt, one)[0] for prompt, one in zip(PROMPTS, requests(3), strict=True)]


@pytest.mark.parametrize("drafter", ["draft", "head"])
def test_plain_and_speculative_are_equal(target: str, drafter: str, request: pytest.FixtureRequest) -> None:
    """A batch of drafts, and each request alone without one. The drafts are the reference's."""
    path = request.getfixturevalue(drafter)
    outputs, others = (
        loaded(target, kernels, path).generate(list(PROMPTS), requests(3), use_tqdm=False)
        for kernels in ("triton", "torch")
    )
    assert [output.outputs[0].token_ids for output in outputs] == alone(target)
    stats, wanted = (
        sum((output.outputs[0].speculation for output in each), SpeculationStats())
        for each in (outputs, others)
    )
    assert stats.drafted_by_position == wanted.drafted_by_position
    assert stats.accepted_by_position == wanted.accepted_by_position
    assert stats.drafted > 5
    assert stats.accepted > 0 or drafter == "head"


def test_planted_fault_a_row_of_a_draft_sees_too_little(target: str, draft: str, monkeypatch: Any) -> None:
    """Positions of drafted rows that are one short are seen by the equality above."""
    real = RowLayout.of

    def faulty(spans: Any, block_size: int) -> RowLayout:
        laid = real(spans, block_size)
        if any(1 < len(span.tokens) == span.logit_rows for span in spans):
            laid.arrays["positions"][1 : laid.rows] -= 1
        return laid

    wanted = alone(target)[:1]
    monkeypatch.setattr(RowLayout, "of", faulty)
    assert tokens(loaded(target, "triton", draft), PROMPTS[:1], requests(1)) != wanted


def test_without_graphs(target: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens, and nothing is recorded."""
    wanted = alone(target)[:1]
    monkeypatch.setattr(LaunchRecorder, "record", None)
    how: dict[str, Any] = {"enforce_eager": True, "speculative_model": draft, "num_speculative_tokens": 2}
    llm = LLM(target, backend="triton", **how, **OPTIONS)
    assert tokens(llm, PROMPTS[:1], requests(1)) == wanted


def test_layers_that_keep_states(tmp_path: Path) -> None:
    """A delta rule's and a convolution's states after a draft are those of rows that came one at a time."""
    target, draft = str(tmp_path / "target"), str(tmp_path / "draft")
    layers = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    made = config("Qwen3_5TextConfig", **DELTA | layers, tie_word_embeddings=True)
    write_noisy_copy(Path(draft), write_hf(Path(target), made()), noise=0.05)
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    (plain,), (reference,) = (
        tokens(LLM(target, backend=kernels, **OPTIONS), [PROMPTS[0]], params) for kernels in KERNELS
    )
    drafting = LLM(target, backend="triton", speculative_model=draft, num_speculative_tokens=2, **OPTIONS)
    (output,) = drafting.generate([PROMPTS[0]], params, use_tqdm=False)
    assert output.outputs[0].token_ids == plain == reference
    assert output.outputs[0].speculation.drafted > 0


def test_what_cannot_be_is_refused(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="dtype = 'float64': Triton's kernels take"):
        LLM(target, device=DEVICE, backend="triton", dtype="float64")
    with pytest.raises(ConfigError, match="kv_cache_dtype = 'int8': Triton's kernels take"):
        LLM(target, device=DEVICE, backend="triton", kv_cache_dtype="int8")
    with pytest.raises(
        ConfigError, match="num_threads = 2 is for the native CPU kernels; this engine uses Tri"
    ):
        LLM(target, device=DEVICE, backend="triton", num_threads=2)
    monkeypatch.setattr(device_module, "INTERPRETED", False)
    with pytest.raises(ConfigError, match="run on a GPU; give device = 'cuda', or set TRITON_INTERPRET=1"):
        LLM(target, device="cpu", backend="triton")
    monkeypatch.setattr(backend, "CUDA", CUDA.__class__("cuda", ("no_such_module",)))
    with pytest.raises(ConfigError, match="backend = 'triton' needs the package 'no_such_module'"):
        LLM(target, device=DEVICE, backend="triton")


def test_device_without_a_gpu() -> None:
    assert device_module.model_name(torch.device("cpu")) == ""


def test_the_driver_is_asked_in_one_file() -> None:
    """So that another kind of device is one file more."""
    there = Path(device_module.__file__)
    assert [path for path in there.parent.glob("*.py") if "torch.cuda" in path.read_text()] == [there]
