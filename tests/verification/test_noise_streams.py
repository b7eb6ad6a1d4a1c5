"""Counter-based noise: extremes, uniformity over bins, and independence of every pair of neighbours."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from outrider.verification.noise import Noise, Stream
from tests.verification.chi_square import agrees

BINS = 64
TOKENS = 20_000
FAR = 5 / TOKENS**0.5
"""Five standard errors of a correlation."""

NEIGHBOURS = {
    "seed": [(Noise(seed), Stream.TOKEN, 0) for seed in (0, 1, 2, -1, 2**63)],
    "sequence": [(Noise(0, sequence), Stream.TOKEN, 0) for sequence in range(4)],
    "stream": [(Noise(0), stream, 0) for stream in Stream],
    "position": [(Noise(0), Stream.TOKEN, position) for position in range(4)],
}
"""Keys that differ in one part, and in that by little."""

seeds = st.integers() | st.integers(-(2**200), 2**200)


def uniform_again(gumbel: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.exp(-np.exp(-gumbel.astype(np.float64)))


def is_uniform(values: NDArray[np.float64]) -> bool:
    counts = Counter((values * BINS).astype(int).clip(max=BINS - 1).tolist())
    return agrees(counts, dict.fromkeys(range(BINS), 1 / BINS))


@pytest.mark.parametrize("stream", Stream)
def test_values_are_uniform_over_tokens_and_over_positions(stream: Stream) -> None:
    assert is_uniform(uniform_again(Noise(5).gumbel(stream, 0, 1, 50_000)[0]))
    assert is_uniform(uniform_again(Noise(5).gumbel(stream, 0, 10_000, 1)[:, 0]))
    assert is_uniform(Noise(5).uniforms(stream, 0, 10_000))


def test_values_are_uniform_over_seeds_and_over_sequences() -> None:
    assert is_uniform(np.concatenate([Noise(seed).uniforms(Stream.ACCEPT, 0, 1) for seed in range(10_000)]))
    assert is_uniform(np.concatenate([Noise(0, n).uniforms(Stream.ACCEPT, 0, 1) for n in range(10_000)]))


@pytest.mark.parametrize("part", NEIGHBOURS)
def test_neighbours_are_not_correlated(part: str) -> None:
    rows = np.concatenate([n.gumbel(stream, position, 1, TOKENS) for n, stream, position in NEIGHBOURS[part]])
    correlations = np.corrcoef(rows.astype(np.float64)) - np.eye(len(rows))
    assert np.abs(correlations).max() < FAR


def test_tokens_and_positions_side_by_side_are_not_correlated() -> None:
    row = Noise(3).gumbel(Stream.TOKEN, 0, 1, TOKENS + 1)[0].astype(np.float64)
    column = Noise(3).uniforms(Stream.ACCEPT, 0, TOKENS + 1)
    for values in (row, column):
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < FAR


def test_uniforms_do_not_follow_the_gumbel_noise_of_other_streams() -> None:
    uniforms = Noise(3).uniforms(Stream.ACCEPT, 0, TOKENS)
    for stream in (Stream.TOKEN, Stream.RECOVER, Stream.DRAFT):
        gumbel = Noise(3).gumbel(stream, 0, TOKENS, 4).astype(np.float64)
        correlations = np.corrcoef(np.concatenate([uniforms[None], gumbel.T]))[0, 1:]
        assert np.abs(correlations).max() < FAR


def test_no_two_keys_share_a_value() -> None:
    """Also where the parts of one key are those of another in a different order."""
    values = [
        Noise(seed, sequence).uniforms(stream, position, 1).item()
        for seed, sequence, stream, position in itertools.product(range(4), range(4), Stream, range(4))
    ]
    assert len(set(values)) == len(values)


@given(seeds, st.integers(0, 2**40), st.sampled_from(Stream))
def test_any_seed_gives_finite_values(seed: int, sequence: int, stream: Stream) -> None:
    noise = Noise(seed, sequence)
    assert np.isfinite(noise.gumbel(stream, 10**9, 2, 40)).all()
    uniforms = noise.uniforms(stream, 10**9, 3)
    assert uniforms.dtype == np.float64
    assert bool(((uniforms >= 0) & (uniforms < 1)).all())


@given(seeds, st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_chunks_put_together_are_the_whole(seed: int, position: int, chunks: list[int]) -> None:
    noise, total = Noise(seed), sum(chunks)
    starts = [position + sum(chunks[:i]) for i in range(len(chunks))]
    gumbel = [noise.gumbel(Stream.DRAFT, start, n, 7) for start, n in zip(starts, chunks, strict=True)]
    assert np.array_equal(np.concatenate(gumbel), noise.gumbel(Stream.DRAFT, position, total, 7))
    uniforms = [noise.uniforms(Stream.ACCEPT, start, n) for start, n in zip(starts, chunks, strict=True)]
    assert np.array_equal(np.concatenate(uniforms), noise.uniforms(Stream.ACCEPT, position, total))


def test_no_positions_is_an_empty_draw() -> None:
    assert Noise(0).uniforms(Stream.ACCEPT, 0, 0).shape == (0,)
