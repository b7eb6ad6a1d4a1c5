"""Rounds of training on what was said last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from outrider import SamplingParams
from outrider.adapting.messages import GoBack, Passage, Setup
from outrider.adapting.process import lesson_of
from outrider.adapting.rounds import Rounds
from outrider.adapting.settings import AdaptConfig
from outrider.models.head_checkpoint import HeadCheckpoint
from tests.adapting.helpers import head_of, passages_of
from tests.engine.helpers import PROMPTS, load
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")
DOMAIN = tuple((40 + n, 41, 42, 43, 200 - n) for n in range(3))
"""Prompts of a narrow domain, of which the head has seen nothing."""
SEEDS = 8


def asked(seed: int) -> SamplingParams:
    return SamplingParams(temperature=0.0 if seed % 2 else 0.3, seed=seed, max_tokens=40, ignore_eos=True)


def said_by(target: str, prompts: Sequence[Sequence[int]]) -> list[Passage]:
    """What there is to learn from some answers to each prompt."""
    llm = load(target)
    kept = passages_of(llm, (0, 1, 2))
    for seed in range(SEEDS):
        llm.generate(prompts, asked(seed), use_tqdm=False)
    return kept


@pytest.fixture(scope="module")
def passages(target: str) -> list[Passage]:
    return said_by(target, DOMAIN)


def rounds(target: str, head: str, **options: Any) -> Rounds:
    config = AdaptConfig(every=1, **{"learning_rate": 1e-2, "passes": 30} | options)
    return Rounds(lesson_of(Setup(target, None, Path(head), 1, config)), config)


def values(made: Rounds) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made._lesson.net.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_head_learns_a_domain(target: str, head: str, passages: list[Passage], tmp_path: Path) -> None:
    """A fifth of acceptance length and more on what it has not seen, in the trainer's score and in drafts."""
    made = rounds(target, head)
    assert not made.due
    for passage in passages:
        made.add(passage)
    assert made.due
    found = made.train()
    assert not made.due
    assert found.after > 1.2 * found.before
    assert found.version == 1
    assert found.tokens == sum(len(passage.tokens) for passage in passages)
    assert found.tensors is not None
    HeadCheckpoint(Path(head)).with_tensors(found.tensors).save(tmp_path)
    accepted = []
    for name in (head, str(tmp_path)):
        llm = load(target, name, num_speculative_tokens=3)
        assert head_of(llm)
        recorded = record(llm)
        llm.generate(DOMAIN, asked(SEEDS + 1), use_tqdm=False)
        accepted.append(sum(increment.accepted for increment in recorded.increments))
    assert accepted[1] > accepted[0]


def test_a_worse_head_is_not_offered(target: str, head: str) -> None:
    """Trained at a rate that ruins it: it is as before, and learns from there."""
    made = rounds(target, head, learning_rate=3.0, passes=1)
    before = values(made)
    for passage in said_by(target, PROMPTS):
        made.add(passage)
    found = made.train()
    assert found.after < found.before
    assert found.tensors is None
    assert found.version == 0
    assert same(values(made), before)


def test_a_gain_within_the_margin_is_kept_and_not_offered(
    target: str, head: str, passages: list[Passage]
) -> None:
    made = rounds(target, head, margin=0.99, passes=4)
    before = values(made)
    for passage in passages:
        made.add(passage)
    found = made.train()
    assert found.after > found.before
    assert found.tensors is None
    assert not same(values(made), before)
    made.add(passages[0])
    assert made.train().before == pytest.approx(found.before, abs=0.5)  # of the version that drafts


def test_memory_is_bounded(target: str, head: str, passages: list[Passage]) -> None:
    """The oldest makes room."""
    most = 3 * max(passage.nbytes for passage in passages)
    made = rounds(target, head, memory=most)
    for passage in passages:
        made.add(passage)
        held = sum(recording.states.nbytes for recording in made._kept)
        assert made.nbytes == held <= most
    assert made._kept[-1].tokens == tuple(passages[-1].tokens.tolist())


def test_going_back(target: str, head: str, passages: list[Passage]) -> None:
    """To what it was before the version that turned out to be worse, also in the middle of a round."""
    made = rounds(target, head, passes=4)
    first = values(made)
    for passage in passages:
        made.add(passage)
    assert made.train().version == 1
    made.go_back(GoBack(7))  # a version that is long gone
    assert not same(values(made), first)
    made.go_back(GoBack(1))
    assert same(values(made), first)
    made.add(passages[0])
    assert made.train().version == 2
    second = values(made)
    made.add(passages[0])
    assert made.train(lambda: made.go_back(GoBack(2))).tensors is None
    assert same(values(made), first)
    assert not same(second, first)


def test_the_latest_is_held_out(target: str, head: str, passages: list[Passage]) -> None:
    made = rounds(target, head)
    for passage in passages:
        made.add(passage)
    older, latest = made._divided()
    assert len(older) + len(latest) == len(passages)
    assert len(latest) in range(2, len(passages) // 8 + 1)
    newest = [tuple(passage.tokens.tolist()) for passage in passages[-len(latest) :]]
    assert {recording.tokens for recording in latest} == set(newest)


def test_states_arrive_as_they_were_sent(target: str, head: str, passages: list[Passage]) -> None:
    made = rounds(target, head)
    made.add(passages[0])
    bits = made._kept[0].states.view(torch.uint16).numpy()
    assert np.array_equal(bits, passages[0].states)
