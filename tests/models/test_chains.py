"""Drafts of one call in native code are those that PyTorch grows token by token."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outrider.models.checkpoint import open_checkpoint
from outrider.models.eagle3 import Eagle3
from outrider.models.head import HeadRunner
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.model import Model
from outrider.models.runner import DraftRunner
from outrider.models.words import words_of
from outrider.ops.budget import Budget, Price
from outrider.ops.choice import Allow, Bar, Choice, Filters, Penalise
from outrider.ops.lane import Grown, Lane
from outrider.ops.span import Span
from tests.models.factories import exact_backend, tiny_config, write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import random_head

LONGEST = 5
PADDING = 7  # rows of a draft's table that its target does not have
SEEDS = range(12)
FILTERS = (None, None, Filters(1.0), Filters(0.5, top_k=12), Filters(2.0, 0.02), Filters(0.9, top_p=0.8))

Make = Callable[[str], "Drafting"]


class Drafting:
    """A runner of a model or of a head. width: of the states that it reads."""

    def __init__(self, runner: DraftRunner | HeadRunner, vocab: int, width: int = 0) -> None:
        self.runner, self.vocab, self.width = runner, vocab, width

    def __call__(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        if isinstance(self.runner, HeadRunner):
            return self.runner.read(lanes, states)
        return self.runner.draft(lanes)


WORDS = 100
"""Of a model that says few."""


@pytest.fixture(scope="module", params=["model", "model of few words", "recurrent model", "head"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes it on a backend of that name."""
    path: Path = tmp_path_factory.mktemp("models")
    config = FAMILIES["qwen3.5"].config() if request.param == "recurrent model" else tiny_config()
    write_hf(path / "model", config)
    if request.param == "head":
        random_head(path / "head", open_checkpoint(str(path / "model")).config)

    def make(name: str) -> Drafting:
        words = WORDS if request.param == "model of few words" else None
        model = Model(open_checkpoint(str(path / "model")), exact_backend(name), words=words)
        options: dict[str, Any] = {"num_blocks": 60, "block_size": 4}
        if request.param != "head":
            vocab = model.config.vocab_size - PADDING
            runner = DraftRunner(model, **options, prefix_caching=False, words=words_of(model, vocab))
            for token in range(2, vocab, 7):
                runner.learn([token, *[1] * 40])  # so that they are rare
            return Drafting(runner, vocab)
        head = Eagle3(HeadCheckpoint(path / "head"), model.backend, model)
        vocab = model.config.vocab_size
        return Drafting(HeadRunner(head, **options, vocab=vocab), vocab, head.config.width)

    return make


def choice(draw: random.Random, vocab: int) -> Choice:
    filters, edits = draw.choice(FILTERS), []
    if draw.random() < 0.3:
        half = np.array(sorted(draw.sample(range(vocab), vocab // 2)))
        edits = [
            draw.choice([(Bar(half),), (Allow(np.isin(np.arange(vocab), half)), Penalise(half[:9], 1.5))])
        ]
    return Choice(1, filters, draw.getrandbits(64), draw.randrange(1000), edits)


def budget(draw: random.Random, length: int) -> Budget:
    if draw.random() < 0.3:
        return Budget(length)
    sure, second = (tuple(draw.uniform(0.2, 0.95) for _ in range(12)) for _ in range(2))
    reached = tuple(draw.uniform(0.2, 0.95) for _ in range(draw.randrange(4)))
    beside = second if draw.random() < 0.5 else ()
    price = Price(draw.uniform(0, 0.3), draw.uniform(0, 0.3), draw.randrange(3), sure, reached, beside)
    return Budget(length, price, siblings=draw.randrange(3))


def ask(drafting: Drafting, seed: int) -> tuple[list[Grown], list[Lane]]:
    """Some lanes and spans in one call, over texts of which parts were read before."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    lanes: list[Lane | Span] = []
    states = []
    tables = []
    for _ in range(draw.randint(1, 4)):
        table = drafting.runner.table()
        tables.append(table)
        tokens = [draw.randrange(drafting.vocab) for _ in range(draw.randint(1, 9))]
        before = draw.randrange(len(tokens))
        rows = numbers.normal(size=(len(tokens), drafting.width)).astype(np.float32)
        if before:
            table.extend(before)
            drafting([Span(tokens[:before], 0, table.tables, 0, table.states)], rows[:before])
            table.settle(before)
        length = draw.randint(1, LONGEST)
        table.extend(len(tokens))
        table.extend(len(tokens) + length - 1, length - 1)
        drafts = draw.random() < 0.85
        span = Span(tokens[before:], before, table.tables, int(drafts), dict(table.states))
        states.append(rows[before:])
        if not drafts:
            lanes.append(span)
            continue
        chosen = choice(draw, drafting.vocab)
        asked = budget(draw, 1 if chosen.edits else length)
        if chosen.edits:
            asked = Budget(1, asked.price)
        stops = draw.sample(range(drafting.vocab), 30)
        looks = draw.random() < 0.5
        lanes.append(Lane(span, chosen, asked, stops, chances=looks, probabilities=looks))
    grown = drafting(lanes, np.concatenate(states))
    for table in tables:
        table.truncate(0)
    return grown, [lane for lane in lanes if isinstance(lane, Lane)]


def test_both_backends_draft_the_same(make: Make) -> None:
    native, oracle = make("native"), make("torch")
    tokens = seconds = 0
    for seed in SEEDS:
        (found, lanes), (expected, _) = ask(native, seed), ask(oracle, seed)
        for ours, theirs, lane in zip(found, expected, lanes, strict=True):
            check(ours, theirs, lane, native.vocab)
            tokens += len(ours.tokens)
            seconds += sum(token >= 0 for token in ours.seconds)
    assert tokens > 2 * len(SEEDS), "something was drafted"
    assert seconds > 0


def check(ours: Grown, theirs: Grown, lane: Lane, vocab: int) -> None:
    assert ours.tokens == theirs.tokens
    assert ours.seconds == theirs.seconds
    count, choice = len(ours.tokens), lane.choice
    assert count <= lane.budget.length
    assert all(0 <= token < vocab for token in ours.tokens)
    assert not {*ours.tokens[:-1]} & {*lane.stops}
    assert len(ours.confidences) == (count if lane.budget.price is not None else 0)
    assert len(ours.chances) == (count if lane.chances else 0)
    np.testing.assert_allclose(ours.confidences, theirs.confidences, rtol=1e-4)
    np.testing.assert_allclose(ours.chances, theirs.chances, rtol=1e-3)
    if not lane.probabilities or not count:
        assert ours.probabilities is None
        assert theirs.probabilities is None
        return
    assert ours.probabilities is not None
    assert theirs.probabilities is not None
    assert ours.probabilities.shape == theirs.probabilities.shape == (count, vocab)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)
    assert all(ours.probabilities[n, token] > 0 for n, token in enumerate(ours.tokens))
    if choice.filters is None:
        assert ours.probabilities.max(axis=1).tolist() == [1.0] * count


def test_edited_drafts_go_on_from_what_was_kept(make: Make) -> None:
    """A head's draft that is edited without effect is, call by call, the draft of one call."""
    for name in ("native", "torch"):
        drafting = make(name)
        if not isinstance(drafting.runner, HeadRunner):
            return
        runner, tokens = drafting.runner, [5, 9, 30, 7]
        states = np.random.default_rng(3).normal(size=(len(tokens), drafting.width)).astype(np.float32)
        whole = grown_alone(runner, tokens, states, edits=[])
        pieces = grown_alone(runner, tokens, states, edits=[(Bar(np.array([], np.int64)),)])
        assert len(whole) == LONGEST
        assert pieces == whole


def grown_alone(runner: HeadRunner, tokens: list[int], states: Any, *, edits: Any) -> list[int]:
    table, drafted = runner.table(), list[int]()
    table.extend(len(tokens) + LONGEST)
    span, filters = Span(tokens, 0, table.tables, 1), Filters(1.0)
    grow, given = runner.read, states
    while len(drafted) < LONGEST:
        length = 1 if edits else LONGEST
        lane = Lane(span, Choice(1, filters, 11, 40 + len(drafted), edits), Budget(length), ())
        (grown,) = grow([lane], given)
        drafted += grown.tokens
        span, grow, given = Span(grown.tokens[-1:], span.end, table.tables, 1), runner.go_on, grown.state
    table.truncate(0)
    return drafted
