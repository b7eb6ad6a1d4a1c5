"""From logits to tokens and probabilities."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.params import SamplingParams
from outrider.sampling.distribution import Categorical, Distribution, Greedy
from outrider.sampling.sampler import TORCH, Kinds, Sampler, native_kinds
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import Spot, SpotDraw
from tests.sampling import reference

rows = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5).map(tuple), min_size=1, max_size=4
)


class Silence:
    """No noise, or noise so small that it is none."""

    ids = None

    def __call__(self, rows: int, vocab: int, device: torch.device) -> Tensor:
        return torch.zeros(rows, vocab, device=device)

    def keys(self, rows: int) -> list[int]:
        raise AssertionError("PyTorch's distributions take tensors")


silence = Silence()


def unheard(count: int, vocab: int, device: torch.device) -> Tensor:
    raise AssertionError("temperature 0 needs no noise")


def distribution(logits: Tensor, **params: Any) -> Distribution:
    return Sampler(SamplingParams(**params), ()).distribution(logits)


def test_ties_go_to_the_lower_id() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert Greedy(logits).choose(unheard) == [1, 0]
    assert Categorical(logits).choose(silence) == [1, 0]
    assert Greedy(logits).probabilities().tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_ties_go_to_the_lower_id_in_a_large_vocabulary() -> None:
    """Where a vectorised or threaded maximum would show."""
    logits = torch.zeros(3, 60_000)
    logits[:, [777, 30_001, 59_999]] = 5.0
    assert Greedy(logits).choose(unheard) == [777] * 3
    assert Categorical(logits).choose(silence) == [777] * 3


@given(rows)
def test_chooses_the_largest_sum_of_score_and_noise(logits: list[tuple[float, ...]]) -> None:
    noise = torch.randn(len(logits), 5, generator=torch.Generator().manual_seed(0))
    scores = torch.tensor(logits)
    chosen = Categorical(scores).choose(lambda count, vocab, device: noise)
    sums = (scores + noise).tolist()
    assert chosen == [row.index(max(row)) for row in sums]


@given(
    rows,
    st.sampled_from([0.0, 0.01, 0.7, 1.0, 5.0]),
    st.sampled_from([0.1, 0.9, 1.0]),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.2]),
)
def test_probabilities_sum_to_one_and_logits_stay(
    logits: list[tuple[float, ...]], temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    given_logits = torch.tensor(logits)
    made = distribution(given_logits, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    probabilities = made.probabilities()
    assert probabilities.dtype == torch.float64
    assert probabilities.shape == given_logits.shape
    assert bool((probabilities >= 0).all())
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(len(logits), dtype=torch.float64))
    chosen = made.choose(silence)
    assert all(probabilities[i, token] > 0 for i, token in enumerate(chosen))
    assert torch.equal(given_logits, torch.tensor(logits))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.integers(0, 10**6),
    st.integers(-1, 11),
    st.integers(0, 10**6),
)
def test_filters_apply_in_order_and_on_what_is_left(
    weights: list[int], share: int, top_k: int, cut: int
) -> None:
    """min-p, then top-k, then top-p of the mass that these have left."""
    min_p = (share % max(weights) + 0.5) / max(weights)
    kept = reference.min_p(weights, min_p)
    left = [weight if i in kept else 0 for i, weight in enumerate(weights)]
    if top_k > 0:
        kept &= reference.top_k(left, top_k)
    left = [weight if i in kept else 0 for i, weight in enumerate(weights)]
    top_p = (cut % sum(left) + 0.5) / sum(left)
    kept &= reference.top_p(left, top_p)
    mass = sum(weights[i] for i in kept)
    want = [weight / mass if i in kept else 0.0 for i, weight in enumerate(weights)]
    scores = torch.tensor([weights], dtype=torch.float64).log().float()
    got = distribution(scores, min_p=min_p, top_k=top_k, top_p=top_p).probabilities()[0]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kinds", [TORCH, native_kinds("portable")])
@pytest.mark.parametrize("params", [{"top_k": 2**31}, {"top_k": 2**70}, {"temperature": 1e300}])
def test_numbers_beyond_their_types(params: dict[str, Any], kinds: Kinds) -> None:
    """A top_k of more than the vocabulary keeps all of it; the highest temperatures make all alike."""
    logits = torch.tensor([[1.0, -torch.inf, 2.0]])
    made = Sampler(SamplingParams(**params), (), kinds).distribution(logits)
    assert made.choose(SpotDraw(Spot(Noise(1), 0), Stream.TOKEN))[0] in (0, 2)
    assert (made.probabilities() > 0).tolist() == [[True, False, True]]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits = [1.0, 0.0, -2.0]
    powers = [math.exp(value / temperature) for value in logits]
    got = distribution(torch.tensor([logits]), temperature=temperature).probabilities()[0].tolist()
    assert got == pytest.approx([power / sum(powers) for power in powers])


@pytest.mark.parametrize(
    "temperature",
    [
        1e-30,
        1e-40,
        5e-324,
    ],
)
def test_the_lowest_temperatures_choose_the_likeliest(temperature: float) -> None:
    made = distribution(torch.tensor([[1.0, 2.0, -1.0]]), temperature=temperature)
    assert made.probabilities().tolist() == [[0.0, 1.0, 0.0]]
    assert made.choose(silence) == [1]
