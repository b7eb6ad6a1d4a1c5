"""Sampling parameters as values that backends carry out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outrider.ops.choice import Choice, Filters
from outrider.params import SamplingParams
from outrider.sampling.sampler import Sampler, build_sampler
from outrider.verification.noise import Noise, Stream
from tests.ops.seam import BACKENDS, chosen

KEY = Noise(1).key(Stream.TOKEN)


def sampler(vocab: int = 3, **params: Any) -> Sampler:
    return build_sampler(
        SamplingParams(**params), prompt=(), bad_words=(), stop_tokens=frozenset(), vocab=vocab
    )


def test_filters_are_those_of_the_parameters() -> None:
    made = sampler(vocab=90, temperature=0.5, min_p=0.1, top_k=20, top_p=0.8)
    assert made == Sampler(Filters(0.5, 0.1, 20, 0.8))
    assert sampler().filters == Filters(1.0)
    assert sampler(top_k=-1).filters == Filters(1.0)
    assert sampler(temperature=0.0, top_p=0.5).filters is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("params", [{"top_k": 2**31}, {"top_k": 2**70}, {"temperature": 1e300}])
def test_numbers_beyond_their_types(params: dict[str, Any], backend: str) -> None:
    """A top_k of more than the vocabulary keeps all of it; the highest temperatures make all alike."""
    logits = np.array([[1.0, -np.inf, 2.0]], np.float32)
    tokens, looked = chosen(backend, logits, Choice(1, sampler(**params).filters, KEY))
    assert tokens[0] in (0, 2)
    assert (looked.probabilities() > 0).tolist() == [[True, False, True]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
def test_the_lowest_temperatures_choose_the_likeliest(temperature: float, backend: str) -> None:
    logits = np.array([[1.0, 2.0, -1.0]], np.float32)
    tokens, looked = chosen(backend, logits, Choice(1, sampler(temperature=temperature).filters, KEY))
    assert looked.probabilities().tolist() == [[0.0, 1.0, 0.0]]
    assert tokens == [1]
