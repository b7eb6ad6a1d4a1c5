"""Speculation with mixtures of experts changes no token, and is not drawn into where rows cost experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.drafting.costs import TargetCost
from outrider.drafting.workloads import WORKLOADS
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.factories import write_noisy_copy
from tests.fakes import automatic
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES


class Unlearning(TargetCost):
    """What passes of these tiny models take is another matter."""

    def observe(self, *step: Any, **told: Any) -> None:
        """Nothing is learnt."""


class Pair(NamedTuple):
    target: str
    draft: str
    alone: LLM


@pytest.fixture(scope="module", params=["qwen3-moe", "gpt-oss"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp("mixture")
    model = write_hf(folder / "target", FAMILIES[request.param].config())
    write_noisy_copy(folder / "draft", model, noise=0.05)
    target = str(folder / "target")
    return Pair(target, str(folder / "draft"), load(target, enable_prefix_caching=False))


def drafted(llm: LLM, pair: Pair, requests: list[SamplingParams]) -> SpeculationStats:
    """What was drafted for all prompts at once; every output is that of the target, for each prompt alone."""
    outputs = llm.generate(PROMPTS, requests, use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests, outputs, strict=True):
        plain = one.model_copy(update={"num_speculative_tokens": 0})
        assert token_ids(output) == token_ids(pair.alone.generate(prompt, plain, use_tqdm=False)[0])
    return sum((output.outputs[0].speculation for output in outputs), SpeculationStats())


@pytest.mark.parametrize("drafter", ["ngram", "draft"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_speculation_changes_no_token(pair: Pair, drafter: str, temperature: float) -> None:
    llm = load(pair.target, drafter if drafter == "ngram" else pair.draft)
    for length in (1, 3, 8):
        requests = [
            SamplingParams(temperature=temperature, seed=seed, max_tokens=24, num_speculative_tokens=length)
            for seed in range(len(PROMPTS))
        ]
        stats = drafted(llm, pair, requests)
        assert stats.drafted > 0
        if drafter == "draft":
            assert stats.accepted > 0


@pytest.mark.parametrize("steep", [False, True])
def test_auto_drafts_where_rows_are_cheap(pair: Pair, steep: bool) -> None:
    """Where each row costs what its experts do, it is not worth it."""
    llm = load(pair.target, pair.draft, num_speculative_tokens=WORKLOADS[None].most)
    cost = Unlearning((1, 64), (10e-3, 640e-3 if steep else 11e-3))
    llm.engine.scheduler.policy = automatic(llm, cost)
    requests = [SamplingParams(temperature=0, max_tokens=40)] * len(PROMPTS)
    stats = drafted(llm, pair, requests)
    most = 15 * len(PROMPTS)  # trials, until it is known what drafts are worth
    assert (stats.drafted > most) == (not steep)
