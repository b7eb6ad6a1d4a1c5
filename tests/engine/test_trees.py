"""Drafts that branch: the same tokens, states and cache as without, and a fault in any of that is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outrider import LLM
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.engine.request import Request
from outrider.verification.accept import Verdict, coupled
from tests import planted
from tests.engine.helpers import PROMPTS, expected, load
from tests.engine.trees import DEEPEST, Hidden, branching, differing, hiding, settings_of
from tests.watchers import record


@pytest.fixture(params=["ngram", "draft", "head"])
def drafting(request: pytest.FixtureRequest, target: str) -> LLM:
    name = request.param if request.param == "ngram" else request.getfixturevalue(request.param)
    llm = load(target, name, num_speculative_tokens=DEEPEST)
    branching(llm.engine)
    return llm


def test_siblings_of_every_drafter(drafting: LLM, target: str) -> None:
    recorded = record(drafting)
    assert not differing(drafting, target)
    drafts = [judged.draft for judged in recorded.judged]
    assert any(len(draft.tokens) > draft.depth for draft in drafts), "something branched"


@pytest.fixture
def tree_llm(target: str) -> LLM:
    """Its hidden tokens are those of temperature 0.9, so that at 0 most drafts fall."""
    return hiding(target, settings_of(0.9))


def test_trees_of_any_shape(tree_llm: LLM, target: str) -> None:
    assert not differing(tree_llm, target)
    assert not differing(tree_llm, target, logprobs=2)


def test_parameters_that_look_at_what_was_written(target: str) -> None:
    """Each node of a tree is edited as it follows its own path."""
    edits = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "min_tokens": 5}
    llm = hiding(target, settings_of(0.9, **edits))
    assert not differing(llm, target, **edits)


def test_a_cache_that_is_too_small_for_all(target: str) -> None:
    llm = hiding(target, settings_of(0.9), kv_cache_memory=200_000, max_model_len=128)
    assert not differing(llm, target)
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


def test_logprobs_are_those_of_the_tokens(tree_llm: LLM, target: str) -> None:
    params = settings_of(0.9, seed=3, logprobs=2)
    output = tree_llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs[0]
    plain = expected(target, PROMPTS[0], params).outputs[0]
    assert output.logprobs == plain.logprobs
    stats = output.speculation
    assert stats.accepted > stats.drafts, "right tokens were found behind the fork"


class Recorder:
    """Keeps the states of each position."""

    state_layers = (1,)

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}

    def read(self, request: Request, first: int, states: Any) -> None:
        self.states |= {first + row: np.array(state) for row, state in enumerate(states)}

    def end(self, request: Request) -> None: ...


def states_of(target: str, *, trees: bool) -> dict[int, Any]:
    recorder, params = Recorder(), settings_of(0.9, seed=3)
    engine = build_engine(
        resolve(target, speculative_model="ngram", num_speculative_tokens=DEEPEST), observer=recorder
    )
    if trees:
        branching(engine)
        engine.drafters.drafters = (engine.drafters.drafters[0], Hidden(target, settings_of(0.9)))
    engine.add(PROMPTS[0], params)
    while engine.unfinished:
        engine.step()
    return recorder.states


def test_states_are_those_of_the_path(target: str) -> None:
    plain, branched = states_of(target, trees=False), states_of(target, trees=True)
    assert plain.keys() == branched.keys()
    assert all(np.array_equal(plain[position], branched[position]) for position in plain)


# Planted faults


def test_noise_of_rows_in_place_of_positions(
    tree_llm: LLM, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.give_rows_noise_in_order(monkeypatch)
    assert differing(tree_llm, target)


def test_a_path_that_stays_where_it_was(tree_llm: LLM, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.leave_paths(monkeypatch)
    assert differing(tree_llm, target)


def test_rows_that_see_their_siblings(tree_llm: LLM, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.show_siblings(monkeypatch)
    assert differing(tree_llm, target)


def test_states_of_the_first_rows(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = states_of(target, trees=False)
    planted.take_first_states(monkeypatch)
    wrong = states_of(target, trees=True)
    assert not all(np.array_equal(plain[position], wrong[position]) for position in plain)


def test_the_walk() -> None:
    """It takes the child that the target says, and then what the target says after that one."""
    tokens, parents, target = (5, 6, 7, 8), (-1, 0, -1, 2), (7, 1, 1, 8, 9)
    assert coupled(target, tokens, parents) == Verdict(2, (7, 8, 9), path=(2, 3))
    assert coupled((5, 6, 3, 0, 0), tokens, parents) == Verdict(2, (5, 6, 3), path=(0, 1))
    assert coupled((4, 0, 0, 0, 0), tokens, parents) == Verdict(0, (4,))
    assert coupled((7, 0, 0, -3, 0), tokens, parents) == Verdict(1, (7,), stuck=True, path=(2,))
