"""Counter-based noise: extremes, uniformity over bins, and independence of every pair of neighbours."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.verification.noise import GOLDEN, Noise, Stream, _uniform, mix
from tests.verification.chi_square import agrees

CPU = torch.device("cpu")
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


def uniform_again(gumbel: Tensor) -> Tensor:
    return torch.exp(-torch.exp(-gumbel.double()))


def is_uniform(values: Tensor) -> bool:
    counts = Counter((values * BINS).long().clamp(max=BINS - 1).tolist())
    return agrees(counts, dict.fromkeys(range(BINS), 1 / BINS))


def test_fifth_output_of_splitmix64() -> None:
    """Of the generator with seed 1234567, published with its reference implementation."""
    assert mix(1234567 + 5 * GOLDEN) == 16408922859458223821


@pytest.mark.parametrize("stream", Stream)
def test_values_are_uniform_over_tokens_and_over_positions(stream: Stream) -> None:
    assert is_uniform(uniform_again(Noise(5).gumbel(stream, 0, 1, 50_000, CPU)[0]))
    assert is_uniform(uniform_again(Noise(5).gumbel(stream, 0, 10_000, 1, CPU)[:, 0]))
    assert is_uniform(Noise(5).uniforms(stream, 0, 10_000))


def test_values_are_uniform_over_seeds_and_over_sequences() -> None:
    assert is_uniform(torch.cat([Noise(seed).uniforms(Stream.ACCEPT, 0, 1) for seed in range(10_000)]))
    assert is_uniform(torch.cat([Noise(0, n).uniforms(Stream.ACCEPT, 0, 1) for n in range(10_000)]))


@pytest.mark.parametrize("part", NEIGHBOURS)
def test_neighbours_are_not_correlated(part: str) -> None:
    rows = torch.cat([n.gumbel(stream, position, 1, TOKENS, CPU) for n, stream, position in NEIGHBOURS[part]])
    off_diagonal = torch.corrcoef(rows.double()).fill_diagonal_(0)
    assert float(off_diagonal.abs().max()) < FAR


def test_tokens_and_positions_side_by_side_are_not_correlated() -> None:
    row = Noise(3).gumbel(Stream.TOKEN, 0, 1, TOKENS + 1, CPU)[0].double()
    column = Noise(3).uniforms(Stream.ACCEPT, 0, TOKENS + 1)
    for values in (row, column):
        assert abs(float(torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1])) < FAR


def test_uniforms_do_not_follow_the_gumbel_noise_of_other_streams() -> None:
    uniforms = Noise(3).uniforms(Stream.ACCEPT, 0, TOKENS)
    for stream in (Stream.TOKEN, Stream.RECOVER, Stream.DRAFT):
        gumbel = Noise(3).gumbel(stream, 0, TOKENS, 4, CPU).double()
        correlations = torch.corrcoef(torch.cat([uniforms[None], gumbel.T]))[0, 1:]
        assert float(correlations.abs().max()) < FAR


def test_no_two_keys_share_a_value() -> None:
    """Also where the parts of one key are those of another in a different order."""
    values = [
        float(Noise(seed, sequence).uniforms(stream, position, 1))
        for seed, sequence, stream, position in itertools.product(range(4), range(4), Stream, range(4))
    ]
    assert len(set(values)) == len(values)


@given(seeds, st.integers(0, 2**40), st.sampled_from(Stream))
def test_any_seed_gives_finite_values(seed: int, sequence: int, stream: Stream) -> None:
    noise = Noise(seed, sequence)
    assert bool(noise.gumbel(stream, 10**9, 2, 40, CPU).isfinite().all())
    uniforms = noise.uniforms(stream, 10**9, 3)
    assert uniforms.dtype == torch.float64
    assert bool(((uniforms >= 0) & (uniforms < 1)).all())


@pytest.mark.parametrize("bits", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_extreme_bits_stay_inside_the_open_interval(bits: int) -> None:
    uniform = _uniform(torch.tensor([bits]))
    assert 0 < float(uniform) < 1
    assert bool((-torch.log(-torch.log1p(-uniform))).isfinite())


@given(seeds, st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_chunks_put_together_are_the_whole(seed: int, position: int, chunks: list[int]) -> None:
    noise, total = Noise(seed), sum(chunks)
    starts = [position + sum(chunks[:i]) for i in range(len(chunks))]
    gumbel = [noise.gumbel(Stream.DRAFT, start, n, 7, CPU) for start, n in zip(starts, chunks, strict=True)]
    assert torch.equal(torch.cat(gumbel), noise.gumbel(Stream.DRAFT, position, total, 7, CPU))
    uniforms = [noise.uniforms(Stream.ACCEPT, start, n) for start, n in zip(starts, chunks, strict=True)]
    assert torch.equal(torch.cat(uniforms), noise.uniforms(Stream.ACCEPT, position, total))


def test_no_positions_is_an_empty_draw() -> None:
    assert Noise(0).uniforms(Stream.ACCEPT, 0, 0).shape == (0,)
