"""Drafts that branch for models whose layers keep states: the same tokens as without, in both backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outrider import LLM
from outrider.drafting.costs import TargetCost
from outrider.models.checkpoint import open_checkpoint
from tests import planted
from tests.engine.helpers import load
from tests.engine.trees import DEEPEST, branching, differing, hiding, settings_of
from tests.factories import write_noisy_copy
from tests.fakes import automatic
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import random_head
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

RECURRENT = ["qwen3-next", "qwen3.5", "qwen3.5-moe", "lfm2", "lfm2-bias", "lfm2-moe"]


@pytest.fixture(scope="module", params=RECURRENT)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("model")
    write_hf(path, FAMILIES[request.param].config())
    return str(path)


def assert_all_free(llm: LLM) -> None:
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


def test_trees_of_any_shape(model: str) -> None:
    """Small blocks, whose ends lie within accepted paths: states are published there, and adopted."""
    llm = hiding(model, settings_of(0.9), block_size=4)
    recorded = record(llm)
    for _ in ("cold", "warm"):
        assert not differing(llm, model)
    assert any(judged.verdict.straight < judged.verdict.accepted for judged in recorded.judged)
    assert_all_free(llm)


@pytest.mark.parametrize("family", ["qwen3.5", "lfm2"])
def test_in_pytorch(family: str, tmp_path: Path) -> None:
    write_hf(tmp_path, FAMILIES[family].config())
    assert not differing(
        hiding(str(tmp_path), settings_of(0.9), backend="torch", dtype="float32"), str(tmp_path)
    )


@pytest.fixture(scope="module")
def drafters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A target, and by their names what drafts for it."""
    folder: Path = tmp_path_factory.mktemp("drafters")
    write_noisy_copy(folder / "draft", write_hf(folder / "target", FAMILIES["qwen3.5"].config()), noise=0.05)
    random_head(folder / "head", open_checkpoint(str(folder / "target")).config)
    return {"ngram": "ngram"} | {name: str(folder / name) for name in ("target", "draft", "head")}


@pytest.mark.parametrize("name", ["ngram", "draft", "head"])
def test_siblings_of_every_drafter(drafters: dict[str, str], name: str) -> None:
    llm = load(drafters["target"], drafters[name], num_speculative_tokens=DEEPEST)
    branching(llm.engine)
    recorded = record(llm)
    assert not differing(llm, drafters["target"])
    assert any(len(judged.draft.tokens) > judged.draft.depth for judged in recorded.judged)
    assert_all_free(llm)


def test_auto_lets_drafts_branch(drafters: dict[str, str]) -> None:
    """Where a row costs nothing, whatever may stand is worth it."""
    llm = load(drafters["target"], drafters["draft"], num_speculative_tokens=DEEPEST)
    llm.engine.scheduler.policy = automatic(llm, TargetCost((1, 64), (1e-3, 1.001e-3)))
    recorded = record(llm)
    assert not differing(llm, drafters["target"])
    assert any(len(judged.draft.tokens) > judged.draft.depth for judged in recorded.judged)


def test_too_few_slots_for_all(drafters: dict[str, str]) -> None:
    """Trees are as large as slots are free, and requests are preempted."""
    options: dict[str, Any] = {"max_model_len": 100, "kv_cache_memory": 1_200_000}
    llm = hiding(drafters["target"], settings_of(0.9), **options)
    recorded = record(llm)
    assert not differing(llm, drafters["target"])
    assert any(recorded.preempted)
    assert_all_free(llm)


# Planted faults


def test_states_that_stay_in_the_tree(drafters: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    llm = hiding(drafters["target"], settings_of(0.9))
    planted.leave_states(monkeypatch)
    assert differing(llm, drafters["target"])


def test_rows_that_begin_with_the_state_of_a_neighbour(
    drafters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = hiding(drafters["target"], settings_of(0.9), backend="torch", dtype="float32")
    planted.begin_with_neighbours(monkeypatch)
    assert differing(llm, drafters["target"])
