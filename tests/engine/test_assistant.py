"""An assistant that reads the target's K and V gives the target's tokens, however requests come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, ModelError, SamplingParams, SpeculationStats
from outrider.drafting.assistant import AssistantDrafter, InPlace
from outrider.ops.span import Span
from tests import planted
from tests.engine.helpers import PROMPTS, drafters_of, expected, load, token_ids
from tests.factories import tiny_tokenizer
from tests.models.assistants import TARGETS, reference_draft, target_config, write_assistant
from tests.models.factories import write_hf
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK_SIZE, LENGTH = 4, 3
LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (LONG, *PROMPTS[:2], LONG[:40], LONG[:41], *PROMPTS[3:])
OPTIONS: dict[str, Any] = {
    "block_size": BLOCK_SIZE,
    "max_model_len": 160,
    "num_speculative_tokens": LENGTH,
    "prompt_chunk_size": 10,
}


@pytest.fixture(scope="module", params=TARGETS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A target, an assistant that is often right, and one that seldom is."""
    path = tmp_path_factory.mktemp("models")
    model = write_hf(path / "target", target_config(request.param))
    write_assistant(path / "echo", model, echo=True)
    write_assistant(path / "random", model)
    return {name: str(path / name) for name in ("target", "echo", "random")}


def params(temperature: float, seed: int, **others: Any) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=seed, ignore_eos=True, **{"max_tokens": 24} | others)


def run(llm: LLM, requests: list[SamplingParams]) -> list[Any]:
    return llm.generate(MIX, requests, use_tqdm=False)


def total(outputs: list[Any]) -> SpeculationStats:
    return sum((o.outputs[0].speculation for o in outputs), SpeculationStats())


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("name", ["echo", "random"])
def test_same_tokens_in_a_batch(models: dict[str, str], name: str, backend: str) -> None:
    """Alone, preempted, and with beginnings of prompts from the prefix cache: the second round finds all of them."""
    llm = load(models["target"], models[name], backend=backend, max_num_seqs=3, **OPTIONS)
    for temperature in (0.0, 0.8):
        requests = [params(temperature, seed) for seed in range(len(MIX))]
        for _ in range(2):
            outputs = run(llm, requests)
            for prompt, request, output in zip(MIX, requests, outputs, strict=True):
                assert token_ids(output) == token_ids(expected(models["target"], prompt, request))
            assert total(outputs).drafted > len(MIX) * LENGTH
            assert (name == "random") or total(outputs).accepted > 10
    assert sum(output.num_cached_tokens for output in outputs) > 100


def test_same_tokens_after_preemption(models: dict[str, str]) -> None:
    llm = load(models["target"], models["echo"], max_num_seqs=4, enable_prefix_caching=False, **OPTIONS)
    planted.small_pools(llm, 40)
    steps = record(llm)
    requests = [params(0.0, seed, max_tokens=60) for seed in range(len(MIX))]
    for prompt, request, output in zip(MIX, requests, run(llm, requests), strict=True):
        assert token_ids(output) == token_ids(expected(models["target"], prompt, request))
    assert sum(step.preempted for step in steps) > 0
