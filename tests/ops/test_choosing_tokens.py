"""From logits to tokens and probabilities, on both backends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.ops.choice import Add, Allow, Bar, Choice, Edits, Filters, NoToken, Penalise
from outrider.ops.span import Span
from outrider.verification.noise import Noise, Stream
from tests.ops import planted, truncation
from tests.ops.seam import BACKENDS, chosen, handed_through

VOCAB = 5
KEY = Noise(3).key(Stream.TOKEN)

rows = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=VOCAB, max_size=VOCAB).map(tuple), min_size=1, max_size=4
)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def probabilities(backend: str, logits: Any, **filters: Any) -> Any:
    filtered = Filters(**{"temperature": 1.0} | filters)
    logits = np.array(logits, np.float32)
    return chosen(backend, logits, Choice(len(logits), filtered))[1].probabilities()


@every_backend
def test_ties_go_to_the_lower_id(backend: str) -> None:
    logits = np.array([[1.0, 2.0, 2.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    tokens, looked = chosen(backend, logits, Choice(2))
    assert tokens == [1, 0]
    assert looked.probabilities().tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@every_backend
def test_ties_go_to_the_lower_id_in_a_large_vocabulary(backend: str) -> None:
    """Where a vectorised or threaded maximum would show."""
    logits = np.zeros((3, 60_000), np.float32)
    logits[:, [777, 30_001, 59_999]] = 5.0
    assert chosen(backend, logits, Choice(3))[0] == [777] * 3


@pytest.mark.parametrize("vocab", [VOCAB, 60_000])
def test_ties_of_scores_and_noise_go_to_the_lower_id(vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, or with noise so small that it is none."""
    planted.silence_noise(monkeypatch)
    logits = np.zeros((3, vocab), np.float32)
    logits[:, [2, vocab // 2 + 1, vocab - 1]] = 5.0
    assert chosen("torch", logits, Choice(3, Filters(1.0)))[0] == [2] * 3


@every_backend
@given(rows, st.integers(0, 2**64), st.integers(0, 1000), st.sampled_from([0.3, 1.0, 4.0]))
def test_chooses_the_largest_sum_of_score_and_noise(
    backend: str, logits: list[tuple[float, ...]], seed: int, position: int, temperature: float
) -> None:
    noise, count = Noise(seed), len(logits)
    scores = np.array(logits, np.float32)
    choice = Choice(count, Filters(temperature), noise.key(Stream.TOKEN), position)
    scaled = (scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature)
    sums = scaled + noise.gumbel(Stream.TOKEN, position, count, VOCAB)
    assert chosen(backend, scores, choice)[0] == sums.argmax(axis=1).tolist()


@given(rows, st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.data())
def test_both_backends_choose_the_same(
    logits: list[tuple[float, ...]], key: int, position: int, data: st.DataObject
) -> None:
    """And look at the same, with edits, rows that are skipped, and rows behind those that are chosen from."""
    filters = data.draw(
        st.none()
        | st.builds(
            Filters,
            st.sampled_from([0.3, 1.0, 5.0]),
            st.sampled_from([0.0, 0.2]),
            st.integers(0, 6),
            st.sampled_from([0.5, 1.0]),
        )
    )
    skip = data.draw(st.integers(0, len(logits)))
    count = data.draw(st.integers(0, len(logits) - skip))
    edits = data.draw(st.just([]) | st.lists(edits_of_a_row, min_size=count, max_size=count))
    choice = Choice(count, filters, key, position, edits, skip)
    given_logits = np.array(logits, np.float32)
    (tokens, looked), (others, other) = (chosen(backend, given_logits, choice) for backend in BACKENDS)
    assert tokens == others
    np.testing.assert_allclose(looked.probabilities(), other.probabilities(), rtol=1e-12)
    for row, token in ((0, 0), (len(logits) - 1, 3)):
        one, two = (each.ranked(row, token, 3) for each in (looked, other))
        assert [(found.token, found.rank) for found in one] == [(found.token, found.rank) for found in two]
        assert [found.logprob for found in one] == pytest.approx([found.logprob for found in two])


some_ids = st.lists(st.integers(0, VOCAB - 1), unique=True).map(lambda ids: np.array(ids, np.int64))
changes = st.one_of(
    some_ids.map(Bar),
    some_ids.map(lambda ids: Allow(np.isin(np.arange(VOCAB), ids))),
    some_ids.map(lambda ids: Add(ids, np.linspace(-2, 3, len(ids), dtype=np.float32))),
    st.builds(Penalise, some_ids, st.sampled_from([0.5, 1.3])),
)
edits_of_a_row: st.SearchStrategy[Edits] = st.lists(changes, max_size=3).map(tuple)


@every_backend
@given(
    rows,
    st.sampled_from([0.0, 0.01, 0.7, 1.0, 5.0]),
    st.sampled_from([0.1, 0.9, 1.0]),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.2]),
)
def test_probabilities_sum_to_one(
    backend: str,
    logits: list[tuple[float, ...]],
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
) -> None:
    filters = Filters(temperature, min_p, top_k, top_p) if temperature else None
    scores = np.array(logits, np.float32)
    tokens, looked = chosen(backend, scores, Choice(len(scores), filters, KEY))
    found = looked.probabilities()
    assert found.dtype == np.float64
    assert found.shape == scores.shape
    assert (found >= 0).all()
    assert found.sum(axis=-1) == pytest.approx(1.0)
    assert all(found[i, token] > 0 for i, token in enumerate(tokens))


@every_backend
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.integers(0, 10**6),
    st.integers(0, 11),
    st.integers(0, 10**6),
)
def test_filters_apply_in_order_and_on_what_is_left(
    backend: str, weights: list[int], share: int, top_k: int, cut: int
) -> None:
    """min-p, then top-k, then top-p of the mass that these have left."""
    min_p = (share % max(weights) + 0.5) / max(weights)
    kept = truncation.min_p(weights, min_p)
    left = [weight if i in kept else 0 for i, weight in enumerate(weights)]
    if top_k > 0:
        kept &= truncation.top_k(left, top_k)
    left = [weight if i in kept else 0 for i, weight in enumerate(weights)]
    top_p = (cut % sum(left) + 0.5) / sum(left)
    kept &= truncation.top_p(left, top_p)
    mass = sum(weights[i] for i in kept)
    want = [weight / mass if i in kept else 0.0 for i, weight in enumerate(weights)]
    got = probabilities(backend, [np.log(weights)], min_p=min_p, top_k=top_k, top_p=top_p)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=0)


@every_backend
@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_divides_the_logits(backend: str, temperature: float) -> None:
    logits = [1.0, 0.0, -2.0]
    powers = [math.exp(value / temperature) for value in logits]
    got = probabilities(backend, [logits], temperature=temperature)[0].tolist()
    assert got == pytest.approx([power / sum(powers) for power in powers])


@every_backend
def test_a_low_temperature_chooses_the_likeliest(backend: str) -> None:
    logits = np.array([[1.0, 2.0, -1.0]] * 20, np.float32)
    tokens, looked = chosen(backend, logits, Choice(20, Filters(1e-30), KEY))
    assert looked.probabilities().tolist() == [[0.0, 1.0, 0.0]] * 20
    assert tokens == [1] * 20


@every_backend
@pytest.mark.parametrize("filters", [None, Filters(1.0), Filters(0.5, 0.1, 3, 0.9)], ids=str)
def test_a_row_without_a_token_says_why(backend: str, filters: Filters | None) -> None:
    """It says the worst of several reasons; an edit may be one, or mend the row."""
    nothing, nan, inf = -np.inf, np.nan, np.inf
    logits = np.array(
        [[1, nan, 2], [1, inf, 2], [nothing] * 3, [nan, inf, 0], [1, 2, 3], [0, nan, 9], [0, nan, 9]],
        np.float32,
    )
    every, one = np.arange(3), np.array([1])
    edits: list[Edits] = [(), (), (), (), (Bar(every),), (Bar(one),), ()]
    tokens, looked = chosen(backend, logits, Choice(7, filters, KEY, edits=edits))
    assert tokens[:5] == [NoToken.NAN, NoToken.INFINITE, NoToken.NOTHING, NoToken.NAN, NoToken.NOTHING]
    assert tokens[5] in ((2,) if filters is None else (0, 2))
    assert tokens[6] == NoToken.NAN
    found = looked.probabilities()
    assert np.isnan(found[[0, 1, 2, 3, 4, 6]]).all()
    assert found[5].sum() == pytest.approx(1)


@every_backend
def test_spans_of_one_pass_have_choices_of_their_own(backend: str) -> None:
    """Some have none, some skip rows, and some rows have no logits."""
    logits = np.random.default_rng(0).normal(size=(9, VOCAB)).astype(np.float32)
    forward = handed_through(backend, VOCAB)
    spans = [Span([0] * rows, 0, (), logit_rows) for rows, logit_rows in ((3, 2), (2, 0), (4, 4))]
    choices = [Choice(1, Filters(1.0), KEY, 5, skip=1), None, Choice(3, Filters(1.0), KEY, 7)]
    stepped = forward.step(spans, choices, logits)
    assert stepped.rows is None
    alone = [
        chosen(backend, logits[[row]], Choice(1, Filters(1.0), KEY, at))[0][0]
        for row, at in ((2, 5), (5, 7), (6, 8), (7, 9))
    ]
    assert [list(tokens) for tokens in stepped.tokens] == [alone[:1], [], alone[1:]]
    looked = forward.step(spans, choices, logits, looks=True)
    assert looked.tokens == stepped.tokens
    assert looked.rows is not None
    assert looked.rows[0].probabilities().shape == (1, VOCAB)
    assert looked.rows[2].ranked(3, 0, 1)[-1].token == logits[8].argmax()
    assert np.array_equal(forward(spans, logits).logits, logits[[1, 2, 5, 6, 7, 8]])


@every_backend
def test_rows_of_a_tree_have_the_noise_of_their_positions(backend: str) -> None:
    logits = np.random.default_rng(1).normal(size=(4, VOCAB)).astype(np.float32)
    offsets = [0, 1, 1, 2]
    tree = Choice(4, Filters(1.0), KEY, 30, offsets=offsets)
    alone = [
        chosen(backend, logits[[row]], Choice(1, Filters(1.0), KEY, 30 + offset))[0][0]
        for row, offset in enumerate(offsets)
    ]
    assert list(chosen(backend, logits, tree)[0]) == alone
    same = np.zeros((400, VOCAB), np.float32)
    tokens, _ = chosen(backend, same, Choice(400, Filters(1.0), KEY, 0, offsets=[n // 2 for n in range(400)]))
    assert all(one == other for one, other in zip(tokens[::2], tokens[1::2], strict=True))
    assert len({*tokens}) == VOCAB
