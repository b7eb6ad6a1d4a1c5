"""Native choice of a token, without a sort: what filters keep and noise decides, by their definition."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.choosing import (
    NAN,
    Edit,
    Filters,
    Price,
    bar,
    choice,
    chosen,
    gumbel,
    tokens_of,
    why_none,
)
from tests.ops.oracle import Array, softmax
from tests.ops.programs import BEST, INSTRUCTION_SETS, matrix, native, numbers, program
from tests.verification.chi_square import agrees


def probabilities(logits: Array, filters: Filters | None, instruction_set: str = BEST) -> Array:
    """The chances of the very tokens that are chosen from; float64."""
    scores = native.scores(logits, choice(len(logits), filters), instruction_set)
    return softmax(scores.astype(np.float64))


def check(logits: Array, wanted: Filters, key: int) -> None:
    """The chosen token is kept, and no kept token's score and noise is larger but for rounding."""
    for row, token in enumerate(tokens_of(logits, choice(len(logits), wanted, key))):
        values = wanted.scores(logits[row]) + gumbel(key, row, logits.shape[1])
        assert values[token] > -np.inf
        assert values[token] >= values.max() - 1e-4


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"temperature": 0.01},
        {"temperature": 7.0},
        {"top_k": 1},
        {"top_k": 50},
        {"top_k": 5000},
        {"top_k": 10**6},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"top_p": 1e-6},
        {"top_k": 40, "top_p": 0.8, "min_p": 0.02, "temperature": 1.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_a_large_vocabulary(given: dict[str, Any], spread: float) -> None:
    logits = numbers(6, 60_001, seed=1, scale=spread)
    for key in range(3):
        check(logits, Filters(**given), key)


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.integers(-6, 6), min_size=1, max_size=200),
    temperature=st.sampled_from((0.3, 1.0, 4.0)),
    top_k=st.sampled_from((0, 1, 3, 70)),
    top_p=st.sampled_from((1.0, 0.3, 0.77)),
    min_p=st.sampled_from((0.0, 0.1)),
    forbidden=st.sets(st.integers(0, 199)),
    key=st.integers(0, 99),
)
def test_ties_and_forbidden_tokens(
    logits: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    forbidden: set[int],
    key: int,
) -> None:
    row = np.array(logits, np.float32)
    for token in forbidden:
        if token < len(row) and np.isfinite(row).sum() > 1:
            row[token] = -np.inf
    check(row[None], Filters(temperature, min_p, top_k, top_p), key)


def test_distribution() -> None:
    """Over many positions, tokens come as often as their probabilities say."""
    weights = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    logits = np.tile(np.log(weights).astype(np.float32), (20_000, 1))
    counts = Counter(tokens_of(logits, choice(len(logits), Filters(), 11)))
    assert agrees(counts, dict(enumerate(weights.tolist())))
    assert not agrees(counts, dict(enumerate([0.37, 0.33, 0.15, 0.1, 0.05])))  # the check can fail


def test_the_same_noise_as_by_definition() -> None:
    logits = numbers(200, 5000, seed=2)
    tokens = tokens_of(logits, choice(200, Filters(), 4, 17))
    assert tokens == [chosen(row, Filters(), 4, 17 + i) for i, row in enumerate(logits)]


def test_greedy_takes_the_first_of_equals() -> None:
    logits = np.zeros((3, 60_000), np.float32)
    logits[:, [777, 30_001, 59_999]] = 5.0
    logits[1] = -np.inf
    logits[1, 9] = -1e30
    assert tokens_of(logits, choice(3)) == [777, 9, 777]


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.integers(-6, 6), min_size=1, max_size=200),
    top_k=st.sampled_from((0, 3, 70)),
    top_p=st.sampled_from((1.0, 5e-324, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.999999, 1 - 2.0**-53)),
    min_p=st.sampled_from((0.0, 5e-324, 0.1, 1.0)),
    instruction_set=st.sampled_from(INSTRUCTION_SETS),
)
def test_probabilities_are_those_of_the_filters(
    logits: list[int], top_k: int, top_p: float, min_p: float, instruction_set: str
) -> None:
    row, wanted = np.array(logits, np.float32), Filters(1.0, min_p, top_k, top_p)
    got = native.scores(row[None], choice(1, wanted), instruction_set)[0]
    assert np.array_equal(got, wanted.scores(row))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("equals", [10, 1000, 50_000])
@pytest.mark.parametrize("tenths", [1, 3, 5, 7, 9])
def test_top_p_on_the_boundary_between_equals(equals: int, tenths: int, instruction_set: str) -> None:
    """The first tokens of just that mass are kept, and no other is ever chosen."""
    logits, wanted = np.zeros((50, equals), np.float32), Filters(top_p=tenths / 10)
    kept = np.flatnonzero(probabilities(logits, wanted, instruction_set)[0]).tolist()
    assert kept == list(range(equals * tenths // 10))
    assert set(tokens_of(logits, choice(50, wanted, 5), instruction_set=instruction_set)) <= set(kept)


def test_what_is_chosen_has_a_probability() -> None:
    """At every edge of a distribution: p is the mass of its first tokens, or a hair more or less."""
    logits = np.tile(numbers(400, seed=3), (40, 1))
    masses = np.cumsum(np.sort(softmax(logits[0].astype(np.float64)))[::-1])
    for p in masses[:150:5].tolist():
        for edge in (p * (1 - 1e-7), p, p * (1 + 1e-7)):
            wanted = Filters(top_p=edge)
            shares = probabilities(logits, wanted)
            assert all(
                shares[i, token] > 0 for i, token in enumerate(tokens_of(logits, choice(40, wanted, 6)))
            )


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 30.0])
def test_mass_of_a_large_vocabulary(spread: float) -> None:
    """The kept set is the smallest with the mass that was asked for."""
    logits = numbers(1, 60_001, seed=4, scale=spread)
    exact = softmax(logits[0].astype(np.float64))
    for p in (0.1, 0.5, 0.9, 0.99):
        kept = exact[probabilities(logits, Filters(top_p=p))[0] > 0]
        assert kept.sum() >= p * (1 - 1e-5)
        assert kept.sum() - kept.min() <= p * (1 + 1e-5)


def broken_rows() -> Array:
    """Rows [8, 300] of which only 0, 3 and 7 can be chosen from."""
    rows = numbers(8, 300, seed=5)
    rows[0, 7] = rows[3, 299] = -np.inf
    rows[1, 0] = rows[2, 299] = np.nan
    rows[4, 150] = np.inf
    rows[5] = np.nan
    rows[6] = -np.inf
    return rows


@pytest.mark.parametrize(
    "wanted",
    [None, Filters(), Filters(top_p=0.5), Filters(top_k=5), Filters(min_p=0.5), Filters(1.0, 0.1, 9, 1e-9)],
    ids=str,
)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_a_row_without_a_token_has_none(wanted: Filters | None, instruction_set: str) -> None:
    """And says why; the rows beside it are what they are alone."""
    rows, good = broken_rows(), [0, 3, 7]
    tokens = tokens_of(rows, choice(8, wanted, 7), instruction_set=instruction_set)
    assert [i for i, token in enumerate(tokens) if token >= 0] == good
    assert [token for token in tokens if token < 0] == [why_none(rows[i]) for i in (1, 2, 4, 5, 6)]
    shares = probabilities(rows, wanted, instruction_set)
    assert np.isnan(shares[[1, 2, 4, 5, 6]]).all()
    np.testing.assert_allclose(shares[good].sum(axis=1), 1)
    assert all(shares[i, tokens[i]] > 0 for i in good)


def confidences(logits: Array, instruction_set: str, edits: list[Edit]) -> list[float]:
    """How sure a draft of one token is, of each row."""
    p = program(instruction_set)
    p.output(p.select_logit_rows(p.embed(matrix(logits))))
    rows, vocab = logits.shape
    price = Price(0.0, 0.0, 0, [1.0], []).native
    wanted = native.Choice(0, 1, None, 0, 0, [[edit.change for edit in edits]])
    lane = native.Lane(wanted, 1, [], price, False, False)
    numbered, ones = list(range(rows)), [1] * rows
    drafts = native.draft(p, p, numbered, [0] * rows, ones, [[]] * rows, [lane] * rows, None, vocab)
    return [draft.confidences[0] if draft.tokens else NAN for draft in drafts]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_confidences(instruction_set: str) -> None:
    """The probability of the likeliest token, before edits; 0 where a row has none before them."""
    logits = numbers(20, 8193, seed=9) * np.arange(1, 21, dtype=np.float32)[:, None]
    expected = softmax(logits.astype(np.float64)).max(axis=1)
    assert confidences(logits, instruction_set, []) == pytest.approx(expected.tolist(), rel=1e-5)
    assert confidences(logits, instruction_set, [bar(range(99))]) == pytest.approx(
        expected.tolist(), rel=1e-5
    )
    broken = broken_rows()
    expected = softmax(broken[[0, 3, 7]].astype(np.float64)).max(axis=1)
    found = confidences(broken, instruction_set, [])
    assert [found[i] for i in (0, 3, 7)] == pytest.approx(expected.tolist(), rel=1e-5)
    assert [found[i] for i in (1, 2, 4, 5, 6)] == [NAN] * 5
    assert confidences(broken[[1, 2, 4]], instruction_set, [bar([0, 150, 299])]) == [0.0] * 3
    certain = np.full((1, 9), -np.inf, np.float32)
    certain[0, 4] = 2
    assert confidences(certain, instruction_set, []) == [1.0]


def test_other_threads_run_meanwhile() -> None:
    """The interpreter's lock is not held while tokens are chosen."""
    logits, wanted = numbers(64, 60_000), choice(64, Filters(top_p=0.9), 8)
    done, ticks = threading.Event(), 0

    def choose() -> None:
        for _ in range(4):
            tokens_of(logits, wanted)
        done.set()

    thread = threading.Thread(target=choose)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 20
