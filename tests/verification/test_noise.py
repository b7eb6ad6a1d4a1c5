"""The noise of requests: pinned values, moments, and independence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.ops.noise import folded
from outrider.verification.noise import Noise, Stream

EULER = 0.5772156649


def test_what_requests_were_ever_answered_with() -> None:
    """Keys and numbers stay as they are, or the same seed would give other texts."""
    keys = [Noise(1, 2).key(stream) for stream in Stream]
    assert [folded((5,), key) for key in keys] == [
        12281654868759955854,
        18078750414346324355,
        497963180778947837,
        17365164931186906404,
    ]
    assert folded((6,), Noise(-5).of_round(8).key(Stream.TOKEN)) == 16774780422879121876
    gumbel = Noise(1, 2).gumbel(Stream.TOKEN, 5, 2, 4)
    assert gumbel.dtype == np.float32
    assert gumbel.tolist() == [
        pytest.approx([0.6735123991966248, -1.7928104400634766, -0.5179744362831116, 0.6236991882324219]),
        pytest.approx([-0.2530337870121002, 2.58132266998291, -0.3934454619884491, 3.5385940074920654]),
    ]
    uniforms = Noise(1, 2).uniforms(Stream.ACCEPT, 5, 3)
    assert uniforms.tolist() == [0.4418107512278856, 0.8568806079034571, 0.19238327984776038]


def test_gumbel_moments() -> None:
    """Mean Euler's constant, variance pi^2 / 6, and the distribution function at a few points."""
    values = Noise(7).gumbel(Stream.TOKEN, 0, 40, 5000).astype(np.float64).flatten()
    assert float(values.mean()) == pytest.approx(EULER, abs=0.01)
    assert float(values.var()) == pytest.approx(np.pi**2 / 6, abs=0.02)
    for at in (-1.5, -0.5, 0.0, 1.0, 3.0, 6.0):
        assert float((values < at).mean()) == pytest.approx(np.exp(-np.exp(-at)), abs=0.004)


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
    x, y = (noise.gumbel(stream, position, 1, 20000)[0] for noise, stream, position in (a, b))
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.03


@given(st.integers(-(2**70), 2**70), st.integers(0, 10**6), st.integers(1, 4))
def test_a_position_is_the_same_alone_and_among_others(seed: int, position: int, count: int) -> None:
    noise = Noise(seed)
    together = noise.gumbel(Stream.TOKEN, position, count, 50)
    assert np.isfinite(together).all()
    for i in range(count):
        assert np.array_equal(together[i], noise.gumbel(Stream.TOKEN, position + i, 1, 50)[0])
    uniforms = noise.uniforms(Stream.ACCEPT, position, count)
    assert ((uniforms >= 0) & (uniforms < 1)).all()
    assert float(uniforms[-1]) == float(noise.uniforms(Stream.ACCEPT, position + count - 1, 1)[0])


def test_a_wider_vocabulary_keeps_the_noise_of_the_tokens_it_had() -> None:
    narrow, wide = (Noise(3).gumbel(Stream.TOKEN, 5, 1, vocab)[0] for vocab in (100, 150))
    assert np.array_equal(narrow, wide[:100])


def test_uniforms_are_uniform() -> None:
    values = Noise(11).uniforms(Stream.ACCEPT, 0, 20000)
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 60  # chi-square, 19 degrees of freedom
