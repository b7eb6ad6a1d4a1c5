"""Counter-based noise: published values, moments, and independence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outrider.verification.noise import GOLDEN, MASK, Noise, Stream, _mix, _signed, mix

CPU = torch.device("cpu")
EULER = 0.5772156649
# The first outputs of SplitMix64 with seed 1234567, as its reference implementation gives them.
KNOWN = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)


def test_known_values() -> None:
    assert tuple(mix(1234567 + (n + 1) * GOLDEN) for n in range(len(KNOWN))) == KNOWN


@given(st.lists(st.integers(0, MASK), min_size=1, max_size=20))
def test_tensors_mix_as_integers_do(values: list[int]) -> None:
    mixed = _mix(torch.tensor([_signed(value) for value in values])).tolist()
    assert [value & MASK for value in mixed] == [mix(value) for value in values]


def test_gumbel_moments() -> None:
    """Mean Euler's constant, variance pi^2 / 6, and the distribution function at a few points."""
    values = Noise(7).gumbel(Stream.TOKEN, 0, 40, 5000, CPU).double().flatten()
    assert float(values.mean()) == pytest.approx(EULER, abs=0.01)
    assert float(values.var()) == pytest.approx(torch.pi**2 / 6, abs=0.02)
    for at in (-1.5, -0.5, 0.0, 1.0, 3.0, 6.0):
        below = float((values < at).double().mean())
        assert below == pytest.approx(float(torch.exp(-torch.exp(torch.tensor(-at)))), abs=0.004)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((Noise(1), Stream.TOKEN, 0), (Noise(2), Stream.TOKEN, 0)),
        ((Noise(1), Stream.TOKEN, 0), (Noise(1), Stream.DRAFT, 0)),
        ((Noise(1), Stream.TOKEN, 0), (Noise(1), Stream.RECOVER, 0)),
        ((Noise(1), Stream.TOKEN, 0), (Noise(1), Stream.TOKEN, 1)),
        ((Noise(1), Stream.TOKEN, 0), (Noise(1, 1), Stream.TOKEN, 0)),
        ((Noise(0), Stream.TOKEN, 1), (Noise(1), Stream.TOKEN, 0)),
    ],
)
def test_streams_are_independent(a: tuple[Noise, Stream, int], b: tuple[Noise, Stream, int]) -> None:
    x, y = (noise.gumbel(stream, position, 1, 20000, CPU)[0] for noise, stream, position in (a, b))
    correlation = torch.corrcoef(torch.stack([x, y]))[0, 1]
    assert abs(float(correlation)) < 0.03


@given(st.integers(-(2**70), 2**70), st.integers(0, 10**6), st.integers(1, 4))
def test_a_position_is_the_same_alone_and_among_others(seed: int, position: int, count: int) -> None:
    noise = Noise(seed)
    together = noise.gumbel(Stream.TOKEN, position, count, 50, CPU)
    assert together.isfinite().all()
    for i in range(count):
        assert torch.equal(together[i], noise.gumbel(Stream.TOKEN, position + i, 1, 50, CPU)[0])
    uniforms = noise.uniforms(Stream.ACCEPT, position, count)
    assert ((uniforms >= 0) & (uniforms < 1)).all()
    assert float(uniforms[-1]) == float(noise.uniforms(Stream.ACCEPT, position + count - 1, 1)[0])


def test_a_wider_vocabulary_keeps_the_noise_of_the_tokens_it_had() -> None:
    narrow, wide = (Noise(3).gumbel(Stream.TOKEN, 5, 1, vocab, CPU)[0] for vocab in (100, 150))
    assert torch.equal(narrow, wide[:100])


def test_uniforms_are_uniform() -> None:
    values = Noise(11).uniforms(Stream.ACCEPT, 0, 20000)
    counts = torch.histc(values, bins=20, min=0, max=1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 60  # chi-square, 19 degrees of freedom
