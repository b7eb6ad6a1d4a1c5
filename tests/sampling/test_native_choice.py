"""Native choice of a token: what filters keep, and the noise of `Categorical`, without a sort."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outrider.sampling.distribution import Categorical, NativeCategorical, NativeGreedy
from outrider.sampling.filters import Filters
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import Spot, SpotDraw
from tests.verification.chi_square import agrees

NOTHING: dict[str, Any] = {"temperature": 1.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0}


def filters(**given: Any) -> Filters:
    return Filters(**{**NOTHING, **given})


def draw(seed: int, start: int = 0) -> SpotDraw:
    return SpotDraw(Spot(Noise(seed), start), Stream.TOKEN)


def check(logits: Tensor, wanted: Filters, seed: int) -> None:
    """The chosen token is kept, and no kept token's score and noise is larger but for rounding."""
    noise = draw(seed)
    chosen = NativeCategorical(logits, wanted).choose(noise)
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
    chosen = NativeCategorical(weights.log().expand(rows, 5).contiguous(), filters()).choose(draw(11))
    counts = Counter(chosen)
    assert agrees(counts, dict(enumerate(weights.tolist())))
    assert not agrees(counts, dict(enumerate([0.37, 0.33, 0.15, 0.1, 0.05])))  # the check can fail


def test_same_noise_as_in_pytorch() -> None:
    logits = torch.randn(200, 5000, generator=torch.Generator().manual_seed(2))
    native = NativeCategorical(logits, filters()).choose(draw(4))
    assert native == Categorical(filters().scores(logits)).choose(draw(4))


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.zeros(3, 60_000)
    logits[:, [777, 30_001, 59_999]] = 5.0
    logits[1] = -torch.inf
    logits[1, 9] = -1e30
    assert NativeGreedy(logits).choose(None) == [777, 9, 777]


def test_probabilities_are_those_of_the_filters() -> None:
    logits = torch.randn(4, 300)
    wanted = filters(top_k=7, temperature=0.5)
    got = NativeCategorical(logits, wanted).probabilities()
    assert torch.equal(got, Categorical(wanted.scores(logits)).probabilities())
