"""A cache of 8 bits keeps the promises: the same tokens and scores alone, with drafts, in any batch, after a
preemption, from a warm cache, and with any number of threads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import MistralForCausalLM

from outrider import LLM, ConfigError, SamplingParams, SpeculationStats
from outrider.cache.division import GroupSize
from outrider.models.checkpoint import open_checkpoint
from outrider.models.runner import group_sizes
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.engine.test_windows import mistral
from tests.factories import write_model, write_noisy_copy
from tests.models.assistants import target_config, write_assistant
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import FEATURES
from tests.watchers import record

LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (LONG, *PROMPTS[:2], LONG[:40], LONG[:41])
OPTIONS: dict[str, Any] = {
    "kv_cache_dtype": "int8", "block_size": 16, "prompt_chunk_size": 10, "max_model_len": 120
}  # fmt: skip
TARGETS = {
    "whole": ("ngram", "draft", "head"),
    "windows": ("draft",),
    "states": ("draft",),
    "shared": ("assistant",),
}
CASES = [(target, drafter) for target, drafters in TARGETS.items() for drafter in drafters]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Of each kind of target the model, and what drafts for it."""
    found: dict[tuple[str, str], str] = {("whole", "ngram"): "ngram"}
    for name in TARGETS:
        folder = tmp_path_factory.mktemp(name)
        if name == "windows":
            model = write_model(folder / "target", mistral(), model_class=MistralForCausalLM)
        elif name == "shared":
            model = write_hf(folder / "target", target_config("gemma4-small"))
            write_assistant(folder / "assistant", model, echo=True)
        else:
            family = {"whole": "llama", "states": "qwen3.5"}[name]
            model = write_hf(folder / "target", FAMILIES[family].config())
        if "draft" in TARGETS[name]:
            write_noisy_copy(folder / "draft", model, noise=0.05)
        if "head" in TARGETS[name]:
            (folder / "head").mkdir()
            FEATURES["plain"](Path(folder / "head"), open_checkpoint(str(folder / "target")).config)
        found |= {(name, kind): str(folder / kind) for kind in ("target", *TARGETS[name]) if kind != "ngram"}
    return found


def params(seed: int, **others: Any) -> SamplingParams:
    given = {"temperature": 0.9 * (seed % 2), "max_tokens": 20, "logprobs": 2, "ignore_eos": True}
    return SamplingParams(seed=seed, **given | others)


def said(llm: LLM, prompts: Any = MIX, **others: Any) -> list[Any]:
    """Tokens and the bits of their scores, of requests in one batch."""
    asked = [params(seed, **others) for seed in range(len(prompts))]
    return [bits(output) for output in llm.generate(list(prompts), asked, use_tqdm=False)]


def bits(output: Any) -> Any:
    (one,) = output.outputs
    scores = [sorted((token, ranked.logprob) for token, ranked in row.items()) for row in one.logprobs]
    return token_ids(output), scores


def alone(paths: dict[tuple[str, str], str], target: str, **others: Any) -> list[Any]:
    """The same from requests one by one, on one thread, without drafts and without anything adopted."""
    llm = load(
        paths[target, "target"],
        num_threads=1,
        enable_prefix_caching=False,
        **OPTIONS | {"prompt_chunk_size": 64},
    )
    asked = [params(seed, **others) for seed in range(len(MIX))]
    return [
        bits(llm.generate(prompt, one, use_tqdm=False)[0]) for prompt, one in zip(MIX, asked, strict=True)
    ]


@pytest.mark.parametrize(("target", "drafter"), CASES)
def test_same_tokens_and_scores(paths: dict[tuple[str, str], str], target: str, drafter: str) -> None:
    """In a batch, drafted for, from a cold and a warm cache, on two threads."""
    llm = load(
        paths[target, "target"], paths[target, drafter], num_threads=2, num_speculative_tokens=3, **OPTIONS
    )
    assert llm.engine.target.facts.cache_dtype == "int8"
    expected = alone(paths, target)
    cold, warm = said(llm), said(llm)
    assert cold == expected
    assert warm == expected
    outputs = llm.generate(list(MIX), [params(0)] * len(MIX), use_tqdm=False)
    assert sum((o.outputs[0].speculation for o in outputs), SpeculationStats()).drafted > 0
    assert sum(output.num_cached_tokens for output in outputs) > 0


@pytest.mark.parametrize("target", ["whole", "windows", "states"])
def test_preempted_requests(paths: dict[tuple[str, str], str], target: str) -> None:
    options: dict[str, Any] = {"max_num_seqs": 5, "num_speculative_tokens": 3} | OPTIONS
    with pytest.raises(ConfigError, match="needs kv_cache_memory of") as refused:
        load(paths[target, "target"], paths[target, "draft"], kv_cache_memory=1, **options)
    (least,) = re.findall(r"of (\d+) bytes at least", str(refused.value))
    llm = load(
        paths[target, "target"], paths[target, "draft"], kv_cache_memory=int(least) * 4 // 3, **options
    )
    recorded = record(llm)
    assert said(llm, max_tokens=40) == alone(paths, target, max_tokens=40)
    assert any(recorded.preempted)


def test_a_planted_scale_that_depends_on_the_pass_is_caught(paths: dict[tuple[str, str], str]) -> None:
    """Rows that are written together have their scales rounded to the same one, as they would with a scale
    a block."""
    llm = load(paths["whole", "target"], paths["whole", "draft"], num_speculative_tokens=3, **OPTIONS)
    runner = llm.engine.target
    step = runner.step

    def shares(spans: Any, choices: Any, **others: Any) -> Any:
        found = step(spans, choices, **others)
        for span in spans:
            block = span.tables[0][(span.end - 1) // 16]
            for layer in runner._cache if len(span.tokens) > 1 else ():
                scales = layer.values[block, :, -4 * 16 :].view(np.float32)
                scales *= np.float32(1.01)
        return found

    assert said(llm) == alone(paths, "whole")
    runner.step = shares  # type: ignore[method-assign]
    assert said(llm, max_tokens=21) != alone(paths, "whole", max_tokens=21)


def test_it_takes_the_bytes_that_the_plan_counts(paths: dict[tuple[str, str], str]) -> None:
    llm = load(paths["whole", "target"], **OPTIONS)
    runner = llm.engine.target
    (size,) = group_sizes(runner.model, 16, 1, 0)
    assert isinstance(size, GroupSize)
    arrays = [array for layer in runner._cache for array in (layer.keys, layer.values)]
    assert sum(array[0].nbytes for array in arrays) == size.block_bytes
    heads = [shape.kv_heads * (shape.head_dim + 4) for shape in runner.model.shapes]
    assert size.block_bytes == 2 * 16 * sum(heads)


def test_pytorch_is_near(paths: dict[tuple[str, str], str]) -> None:
    """The reference's cache has 8 bits, too: its scores are these up to rounding."""
    native, torch = (load(paths["whole", "target"], backend=name, **OPTIONS) for name in ("native", "torch"))
    assert torch.engine.target.facts.cache_dtype == "int8"
    for prompt in MIX:
        first, second = (_best_score(llm, prompt) for llm in (native, torch))
        assert abs(first - second) < 0.02


def _best_score(llm: LLM, prompt: Any) -> float:
    asked = SamplingParams(temperature=0, max_tokens=1, logprobs=1, ignore_eos=True)
    scores = llm.generate(prompt, asked, use_tqdm=False)[0].outputs[0].logprobs
    assert scores is not None
    return max(ranked.logprob for ranked in scores[0].values())


def test_others_are_refused_by_name(paths: dict[tuple[str, str], str]) -> None:
    path = paths["whole", "target"]
    for name in ("fp8", "fp8_e4m3", "nvfp4"):
        with pytest.raises(ConfigError, match=f"kv_cache_dtype = '{name}'.*give 'int8'"):
            load(path, kv_cache_dtype=name)
    with pytest.raises(
        ConfigError, match="'float16': the native kernels keep K and V as float32, bfloat16, int8"
    ):
        load(path, kv_cache_dtype="float16")
    with pytest.raises(ConfigError, match="the model's dtype, float32, or 'int8'"):
        load(path, kv_cache_dtype="bfloat16", backend="torch")
    assert load(path, kv_cache_dtype="int8_per_token_head").engine.target.facts.cache_dtype == "int8"
