"""The noise of tokens: published values, and the same numbers wherever they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outrider.ops.noise import GOLDEN, MASK, folded, mix
from outrider.ops.torch.noise import _mix, _signed, _uniform, gumbel
from outrider.verification.noise import Noise, Stream

# The first outputs of SplitMix64 with seed 1234567, as its reference implementation gives them.
KNOWN = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def test_known_values() -> None:
    assert tuple(mix(1234567 + (n + 1) * GOLDEN) for n in range(len(KNOWN))) == KNOWN


@given(st.lists(st.integers(0, MASK), min_size=1, max_size=20))
def test_tensors_mix_as_integers_do(values: list[int]) -> None:
    mixed = _mix(torch.tensor([_signed(value) for value in values])).tolist()
    assert [value & MASK for value in mixed] == [mix(value) for value in values]


@given(st.lists(st.integers(0, 2**70), max_size=5), st.integers(0, 5))
def test_a_key_goes_on_from_another(parts: list[int], cut: int) -> None:
    assert folded(parts[cut:], folded(parts[:cut])) == folded(parts)


@pytest.mark.parametrize("bits", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_extreme_bits_stay_inside_the_open_interval(bits: int) -> None:
    uniform = _uniform(torch.tensor([bits]))
    assert 0 < float(uniform) < 1
    assert bool((-torch.log(-torch.log1p(-uniform))).isfinite())


@given(
    st.integers(-(2**70), 2**70), st.integers(0, 3), st.sampled_from(Stream), st.integers(0, 10**6), st.data()
)
def test_a_tensor_holds_the_numbers_of_the_request(
    seed: int, sequence: int, stream: Stream, position: int, data: st.DataObject
) -> None:
    """To the last bit of the uniform ones; logarithms are each library's own."""
    noise, count = Noise(seed, sequence), data.draw(st.integers(1, 3))
    keys = [folded((position + i,), noise.key(stream)) for i in range(count)]
    expected = noise.gumbel(stream, position, count, 50)
    tokens = data.draw(st.lists(st.integers(0, 49), min_size=1, unique=True))
    found = gumbel(keys, torch.tensor(tokens)).numpy()
    np.testing.assert_allclose(found, expected[:, tokens], rtol=1e-5, atol=1e-6)
