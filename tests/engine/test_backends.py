"""Native code and PyTorch write and draft the same, whole engines of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.models.checkpoint import open_checkpoint
from tests.engine.helpers import PROMPTS, load
from tests.factories import write_noisy_copy
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import random_head

pytestmark = pytest.mark.usefixtures("one_thread")

EDITED: dict[str, Any] = {"repetition_penalty": 1.3, "bad_words": ("the", "a"), "logit_bias": {40: 2.0}}
OTHERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "filtered": {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
    "edited": {"temperature": 0.7, **EDITED},
    "edited and greedy": {"temperature": 0.0, **EDITED},
    "looked at": {"logprobs": 2},
}


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A target with layers that keep states, a draft model, and a head."""
    folder: Path = tmp_path_factory.mktemp("recurrent")
    write_noisy_copy(folder / "draft", write_hf(folder / "target", FAMILIES["qwen3.5"].config()), noise=0.05)
    random_head(folder / "head", open_checkpoint(str(folder / "target")).config)
    return {name: str(folder / name) for name in ("target", "draft", "head")}


def outcome(llm: LLM, params: dict[str, Any]) -> list[Any]:
    """Tokens, and what became of what was drafted, by position."""
    requests = [
        SamplingParams(**{"temperature": 1.0, "max_tokens": 20, "ignore_eos": True} | params, seed=seed)
        for seed in range(len(PROMPTS))
    ]
    return [
        (
            one.outputs[0].token_ids,
            one.outputs[0].speculation.drafted_by_position,
            one.outputs[0].speculation.accepted_by_position,
        )
        for one in llm.generate(PROMPTS, requests, use_tqdm=False)
    ]


def check(target: str, drafter: str | None, params: dict[str, Any], **options: Any) -> None:
    options |= {"dtype": "float32", "prompt_chunk_size": 100}  # native code would take prompts in two chunks
    if drafter is not None:
        options |= {"num_speculative_tokens": 3}
    native, oracle = (
        outcome(load(target, drafter, backend=backend, **options), params) for backend in ("native", "torch")
    )
    assert native == oracle
    assert (sum(sum(drafted) for _, drafted, _ in native) > 0) == (drafter is not None)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("drafter", [None, "draft", "head"])
def test_same_tokens_and_drafts(
    target: str, drafter: str | None, name: str, request: pytest.FixtureRequest
) -> None:
    check(target, drafter and request.getfixturevalue(drafter), OTHERS[name])


@pytest.mark.parametrize("name", ["plain", "edited"])
@pytest.mark.parametrize("acceptance", ["standard", "block"])
@pytest.mark.parametrize("drafter", ["draft", "head", "ngram"])
def test_rules_that_look_at_distributions(
    target: str, drafter: str, acceptance: str, name: str, request: pytest.FixtureRequest
) -> None:
    path = drafter if drafter == "ngram" else request.getfixturevalue(drafter)
    check(target, path, OTHERS[name], acceptance=acceptance)


@pytest.mark.parametrize("name", ["plain", "edited"])
@pytest.mark.parametrize("drafter", ["draft", "head", "ngram"])
def test_layers_that_keep_states(recurrent: dict[str, str], drafter: str, name: str) -> None:
    check(recurrent["target"], recurrent.get(drafter, drafter), OTHERS[name])
