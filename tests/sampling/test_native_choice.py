"""Native choice of a token: what filters keep, and the noise of `Categorical`, without a sort."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outrider.ops.cpu import extension
from outrider.sampling.distribution import (
    NO_TOKEN,
    Categorical,
    Greedy,
    NativeCategorical,
    NativeGreedy,
    confidences,
)
from outrider.sampling.filters import Filters
from outrider.sampling.sampler import native_kinds
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import Spot, SpotDraw
from tests.verification.chi_square import agrees

INSTRUCTION_SETS: list[str] = extension.require().instruction_sets()
BEST = INSTRUCTION_SETS[0]
NOTHING: dict[str, Any] = {"temperature": 1.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0}


def filters(**given: Any) -> Filters:
    return Filters(**{**NOTHING, **given})


def draw(seed: int, start: int = 0) -> SpotDraw:
    return SpotDraw(Spot(Noise(seed), start), Stream.TOKEN)


def check(logits: Tensor, wanted: Filters, seed: int) -> None:
    """The chosen token is kept, and no kept token's score and noise is larger but for rounding."""
    noise = draw(seed)
    chosen = NativeCategorical(logits, wanted, BEST).choose(noise)
    values = wanted.scores(logits) + noise(len(logits), logits.shape[1], logits.device)
    for row, token in enumerate(chosen):
        assert values[row, token] > -torch.inf
        assert values[row, token] >= values[row].max() - 1e-4


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
    logits = torch.randn(6, 60_001, generator=torch.Generator().manual_seed(1)) * spread
    for seed in range(3):
        check(logits, filters(**given), seed)


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.integers(-6, 6), min_size=1, max_size=200),
    temperature=st.sampled_from((0.3, 1.0, 4.0)),
    top_k=st.sampled_from((0, 1, 3, 70)),
    top_p=st.sampled_from((1.0, 0.3, 0.77)),
    min_p=st.sampled_from((0.0, 0.1)),
    forbidden=st.sets(st.integers(0, 199)),
    seed=st.integers(0, 99),
)
def test_ties_and_forbidden_tokens(
    logits: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    forbidden: set[int],
    seed: int,
) -> None:
    row = torch.tensor([float(x) for x in logits])
    for token in forbidden:
        if token < len(row) and bool(row.isfinite().sum() > 1):
            row[token] = -torch.inf
    check(row[None], Filters(temperature, min_p, top_k, top_p), seed)


def test_distribution() -> None:
    """Over many positions, tokens come as often as their probabilities say."""
    weights = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    rows = 20_000
    chosen = NativeCategorical(weights.log().expand(rows, 5).contiguous(), filters(), BEST).choose(draw(11))
    counts = Counter(chosen)
    assert agrees(counts, dict(enumerate(weights.tolist())))
    assert not agrees(counts, dict(enumerate([0.37, 0.33, 0.15, 0.1, 0.05])))  # the check can fail


def test_same_noise_as_in_pytorch() -> None:
    logits = torch.randn(200, 5000, generator=torch.Generator().manual_seed(2))
    native = NativeCategorical(logits, filters(), BEST).choose(draw(4))
    assert native == Categorical(filters().scores(logits)).choose(draw(4))


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.zeros(3, 60_000)
    logits[:, [777, 30_001, 59_999]] = 5.0
    logits[1] = -torch.inf
    logits[1, 9] = -1e30
    assert NativeGreedy(logits, BEST).choose(None) == [777, 9, 777]


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
    row = torch.tensor([logits], dtype=torch.float32)
    wanted = Filters(1.0, min_p, top_k, top_p)
    got = NativeCategorical(row, wanted, instruction_set).probabilities()
    assert torch.equal(got, Categorical(wanted.scores(row)).probabilities())


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("equals", [10, 1000, 50_000])
@pytest.mark.parametrize("tenths", [1, 3, 5, 7, 9])
def test_top_p_on_the_boundary_between_equals(equals: int, tenths: int, instruction_set: str) -> None:
    """The first tokens of just that mass are kept, and no other is ever chosen."""
    native = NativeCategorical(torch.zeros(50, equals), filters(top_p=tenths / 10), instruction_set)
    kept = (native.probabilities()[0] > 0).nonzero()[:, 0].tolist()
    assert kept == list(range(equals * tenths // 10))
    assert set(native.choose(draw(5))) <= set(kept)


def test_what_is_chosen_has_a_probability() -> None:
    """At every edge of a distribution: p is the mass of its first tokens, or a hair more or less."""
    logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(3))
    masses = logits.double().softmax(dim=-1).sort(descending=True).values.cumsum(dim=-1)[0].tolist()
    for p in masses[:150:5]:
        for edge in (p * (1 - 1e-7), p, p * (1 + 1e-7)):
            rows = NativeCategorical(logits.expand(40, 400).contiguous(), filters(top_p=edge), BEST)
            probabilities = rows.probabilities()
            assert all(probabilities[i, token] > 0 for i, token in enumerate(rows.choose(draw(6))))


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 30.0])
def test_mass_of_a_large_vocabulary(spread: float) -> None:
    """The kept set is the smallest with the mass that was asked for."""
    logits = torch.randn(1, 60_001, generator=torch.Generator().manual_seed(4)) * spread
    exact = logits[0].double().softmax(dim=-1)
    for p in (0.1, 0.5, 0.9, 0.99):
        kept = exact[NativeCategorical(logits, filters(top_p=p), BEST).probabilities()[0] > 0]
        assert kept.sum() >= p * (1 - 1e-5)
        assert kept.sum() - kept.min() <= p * (1 + 1e-5)


def broken_rows() -> Tensor:
    """Rows [8, 300] of which only 0, 3 and 7 can be chosen from."""
    rows = torch.randn(8, 300, generator=torch.Generator().manual_seed(5))
    rows[0, 7] = rows[3, 299] = -torch.inf
    rows[1, 0] = rows[2, 299] = torch.nan
    rows[4, 150] = torch.inf
    rows[5] = torch.nan
    rows[6] = -torch.inf
    return rows


@pytest.mark.parametrize(
    "given",
    [{}, {"top_p": 0.5}, {"top_k": 5}, {"min_p": 0.5}, {"top_k": 9, "top_p": 1e-9, "min_p": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_a_row_without_a_token_has_none(given: dict[str, Any], instruction_set: str) -> None:
    """Natively and in PyTorch; the rows beside it are what they are alone."""
    rows, wanted = broken_rows(), filters(**given)
    good = torch.tensor([0, 3, 7])
    for made in (
        NativeCategorical(rows, wanted, instruction_set),
        Categorical(wanted.scores(rows)),
        NativeGreedy(rows, instruction_set),
        Greedy(rows),
    ):
        chosen = made.choose(draw(7))
        assert [i for i, token in enumerate(chosen) if token != NO_TOKEN] == good.tolist()
        probabilities = made.probabilities()
        assert probabilities[[1, 2, 4, 5, 6]].isnan().all()
        torch.testing.assert_close(probabilities[good].sum(dim=-1), torch.ones(3, dtype=torch.float64))
        assert all(probabilities[i, chosen[i]] > 0 for i in good.tolist())


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_confidences(instruction_set: str) -> None:
    made = native_kinds(instruction_set).confidences
    logits = torch.randn(20, 8193, generator=torch.Generator().manual_seed(9)) * torch.arange(1, 21)[:, None]
    assert made(logits) == pytest.approx(confidences(logits), rel=1e-5)
    assert made(broken_rows()) == pytest.approx(confidences(broken_rows()), rel=1e-5)
    assert made(torch.full((1, 9), -torch.inf).index_fill(1, torch.tensor([4]), 2.0)) == [1.0]


def test_other_threads_run_meanwhile() -> None:
    """The interpreter's lock is not held while tokens are chosen."""
    rows = NativeCategorical(torch.randn(64, 60_000), filters(top_p=0.9), BEST)
    done, ticks = threading.Event(), 0

    def choose() -> None:
        for _ in range(4):
            rows.choose(draw(8))
        done.set()

    thread = threading.Thread(target=choose)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 20
