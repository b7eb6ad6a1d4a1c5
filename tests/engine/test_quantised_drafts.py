"""Drafts at fewer bits than they are stored in: quantised indeed, lossless still, or refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType

from outrider import LLM, ConfigError, SamplingParams, SpeculationStats
from outrider.drafting.model import ModelDrafter
from outrider.models.llama import Llama
from outrider.models.runner import block_bytes
from outrider.ops.batch import Span
from outrider.ops.cpu.backend import NativeBackend
from tests.engine.helpers import BLOCK, PROMPTS, count_preemptions, load, token_ids
from tests.factories import tiny_config, tiny_tokenizer, write_model
from tests.models.factories import write_gguf

FORMATS = ("int8", "int4")


def draft_of(llm: LLM) -> Llama:
    (drafter,) = llm.engine.drafters.drafters
    assert isinstance(drafter, ModelDrafter)
    return drafter.runner.model


def native(model: Llama) -> NativeBackend:
    assert isinstance(model.backend, NativeBackend)
    return model.backend


def requests(temperature: float) -> list[SamplingParams]:
    return [SamplingParams(temperature=temperature, seed=seed, max_tokens=24) for seed in range(len(PROMPTS))]


def generated(llm: LLM, temperature: float, length: int | None = None) -> tuple[list[Any], SpeculationStats]:
    """Token ids of all prompts in one batch, and what became of the drafts."""
    params = [r.model_copy(update={"num_speculative_tokens": length}) for r in requests(temperature)]
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    return [token_ids(o) for o in outputs], sum(
        (o.outputs[0].speculation for o in outputs), SpeculationStats()
    )


def assert_lossless(llm: LLM, plain: LLM) -> None:
    """Greedy and sampled, in a batch; and the drafts do stand now and then."""
    for temperature in (0.0, 0.7, 1.0):
        tokens, stats = generated(llm, temperature)
        assert tokens == generated(plain, temperature)[0]
        assert 0 < stats.accepted <= stats.drafted


# draft_quantization


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("target_options", [{}, {"dtype": "bfloat16"}, {"quantization": "int8"}], ids=str)
def test_same_tokens(target: str, draft: str, format: str, target_options: dict[str, Any]) -> None:
    plain = load(target, **target_options)
    llm = load(target, draft, draft_quantization=format, num_speculative_tokens=4, **target_options)
    assert_lossless(llm, plain)


@pytest.mark.parametrize("format", FORMATS)
def test_same_tokens_under_preemption(target: str, draft: str, format: str) -> None:
    """The draft's cache counts, in its own type: bfloat16 beside the target's float32."""
    blocks, both = 12, BLOCK + BLOCK // 2
    options: dict[str, Any] = {"max_model_len": 192, "max_num_seqs": 8}
    llm = load(
        target,
        draft,
        draft_quantization=format,
        num_speculative_tokens=3,
        kv_cache_memory=blocks * both + both // 2,
        **options,
    )
    assert llm.engine.target.pool.num_blocks == blocks
    assert block_bytes(draft_of(llm), 16) == BLOCK // 2
    preempted = count_preemptions(llm)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    params = [SamplingParams(temperature=0.7, seed=seed, max_tokens=70) for seed in range(8)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert sum(preempted) > 0
    plain = load(target, **options).generate(prompts, params, use_tqdm=False)
    assert [token_ids(output) for output in outputs] == [token_ids(output) for output in plain]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("of_target", [None, "int8", "int4"])
def test_the_draft_is_quantised_and_the_target_is_not(
    target: str, draft: str, format: str, of_target: str | None
) -> None:
    alone = native(load(target, quantization=of_target).engine.target.model).weight_bytes
    llm = load(target, draft, quantization=of_target, draft_quantization=format)
    assert native(llm.engine.target.model).weight_bytes == alone
    expected = native(load(draft, quantization=format).engine.target.model).weight_bytes
    assert native(draft_of(llm)).weight_bytes == expected
    assert (expected == alone) == (format == of_target)


@pytest.mark.parametrize("format", FORMATS)
def test_its_bytes(target: str, tmp_path: Path, format: str) -> None:
    """By hand, for sizes that fill the panels: codes and scales of linear layers, and of table and head."""
    size = 64
    write_model(tmp_path, tiny_config(hidden_size=size, intermediate_size=size, head_dim=16))
    llm = load(target, str(tmp_path), draft_quantization=format)
    vocab = len(tiny_tokenizer())
    layers = 2 * size * (2 * size + 2 * 32 + 3 * size)
    rows = 2 * (2 * size + 2 * 32 + 3 * size)
    panels = -(-vocab // 16) * 16
    table = panels * size + panels * 4  # a scale for each row
    expected = {
        "int8": layers + rows * 4 + 2 * table,
        "int4": (layers + panels * size) * (4 + 16 / 32) / 8 + table,  # a float16 scale for 32 weights
    }[format]
    assert native(draft_of(llm)).weight_bytes == pytest.approx(expected, rel=0.05)


def test_its_logits_are_those_of_the_quantised_model(target: str, draft: str) -> None:
    """The very bits that it has as a target of that format."""
    llm = load(target, draft, draft_quantization="int4", num_speculative_tokens=4)
    alone = load(draft, quantization="int4", kv_cache_dtype="bfloat16")
    span = Span([5, 6, 7, 8], 0, [0], 4)
    assert isinstance(llm.engine.drafters.drafters[0], ModelDrafter)
    ours = llm.engine.drafters.drafters[0].runner.forward([span])
    assert torch.equal(ours, alone.engine.target.forward([span]))


def test_a_chain_quantises_its_models(target: str, draft: str) -> None:
    llm = load(
        target, None, speculative_model=["ngram", draft], draft_quantization="int8", prompt_lookup_min=1
    )
    drafters = llm.engine.drafters.drafters
    assert isinstance(drafters[1], ModelDrafter)
    packed = native(drafters[1].runner.model).weight_bytes
    assert packed == native(load(draft, quantization="int8").engine.target.model).weight_bytes
    tokens, stats = generated(llm, 0.7, 3)
    assert tokens == generated(load(target), 0.7)[0]
    assert stats.accepted > 0


def test_a_quantised_file_is_told_of(target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(hidden_size=64, head_dim=16)
    model = write_model(tmp_path / "model", config)
    path = tmp_path / "draft.gguf"
    write_gguf(path, model, tiny_tokenizer(), GGMLQuantizationType.Q8_0)
    with caplog.at_level(logging.WARNING, "outrider"):
        load(target, str(path), draft_quantization="int4")
    assert f"{path}: weights of type Q8_0 are quantised a second time, to int4" in caplog.text


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"dtype": "float64"}], ids=str)
def test_refused_on_pytorch(target: str, draft: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(target, draft, draft_quantization="int4", **options)
    text = str(refusal.value)
    assert text.startswith(
        "draft_quantization = 'int4' is for the native CPU kernels; this engine uses PyTorch"
    )
    assert "give a draft model without draft_quantization, or run on the CPU with backend = 'native'" in text


def test_both_forms(target: str, draft: str) -> None:
    mapping = {"model": draft, "draft_quantization": "int4", "num_speculative_tokens": 3}
    llm = LLM(target, device="cpu", speculative_config=mapping)
    assert llm.config == load(target, draft, draft_quantization="int4", num_speculative_tokens=3).config
    assert native(draft_of(llm)).weight_bytes < native(llm.engine.target.model).weight_bytes / 3
