"""Sampling parameters as values that backends carry out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from outrider.ops.choice import Add, Bar, Change, Choice, Filters
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


class SlowGrammar:
    """A grammar that can say at once what follows texts of less than three tokens."""

    def ready(self, output: Sequence[int]) -> bool:
        return len(output) < 3

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        return (Bar(np.array([len(output)])),)


@pytest.mark.parametrize(("written", "rows"), [(0, 3), (1, 2), (2, 1), (5, 1)])
def test_rows_end_where_a_grammar_is_not_ready(written: int, rows: int) -> None:
    """But for the first, without which the request could not go on: it waits there."""
    made = sampler(logit_bias={1: 2.0}).within(cast(Any, SlowGrammar()))
    contexts = [[7] * (written + drafted) for drafted in range(6)]
    edits = made.rows(contexts)
    assert len(edits) == rows
    for drafted, changes in enumerate(edits):
        bias, bar = changes  # a grammar comes last
        assert isinstance(bias, Add)
        assert isinstance(bar, Bar)
        assert bar.ids.tolist() == [written + drafted]
    assert made.ready([7] * written) == (written < 3)
    assert sampler().ready([7] * 99)
