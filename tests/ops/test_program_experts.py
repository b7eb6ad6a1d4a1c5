"""Mixtures of experts in native programs: against their definition, and bit for bit in any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.oracle import Array, Experts, relative_error
from tests.ops.programs import (
    INSTRUCTION_SETS,
    chain,
    coarse_matrix,
    matrix,
    numbers,
    program,
    row_depends_on_others,
)

every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
HIDDEN, INNER, COUNT = 40, 32, 6


def mixture(count: int = COUNT, inner: int = INNER, hidden: int = HIDDEN, outputs: int = 48) -> Experts:
    return Experts(
        numbers(count, inner, hidden, seed=1, scale=0.3),
        numbers(count, inner, hidden, seed=2, scale=0.3),
        numbers(count, outputs, inner, seed=3, scale=0.3),
        chosen=2,
    )


def stacked(weights: Array) -> Any:
    return matrix(weights.reshape(-1, weights.shape[-1]))


def record(p: Any, x: int, scores: int, mixture: Experts, **changes: Any) -> int:
    return int(
        p.experts(
            x,
            scores,
            *(stacked(w) for w in (mixture.gates, mixture.ups, mixture.downs)),
            **{
                "count": len(mixture.gates),
                "chosen": mixture.chosen,
                "activation": mixture.activation,
                "scoring": mixture.scoring,
                "normalised": mixture.normalised,
                "factor": mixture.factor,
                "bias": mixture.bias,
            }
            | changes,
        )
    )


def layer(
    mixture: Experts, router: Array, instruction_set: str, count: int = 1, **changes: Any
) -> Callable[[Array], Array]:
    def both(p: Any, x: int) -> int:
        return record(p, x, p.linear(x, [matrix(router)]), mixture, **changes)

    return chain(router.shape[1], both, instruction_set, count)


ROUTER = numbers(COUNT, HIDDEN, seed=4)
MIXTURES = {
    "normalised": mixture(),
    "softmax over all": replace(mixture(), normalised=False),
    "all of them": replace(mixture(), chosen=COUNT),
    "one": replace(mixture(), chosen=1, factor=2.5),
    "sigmoid": replace(mixture(), scoring="sigmoid", chosen=3, bias=numbers(COUNT, seed=5)),
    "sigmoid as it is": replace(mixture(), scoring="sigmoid", normalised=False),
    "softmax with a bias": replace(mixture(), bias=3 * numbers(COUNT, seed=6)),
    "gelu": replace(mixture(), activation="gelu_tanh"),
    "clamped": replace(mixture(), activation="swiglu_clamped", gates=20 * mixture().gates),
}


@every_set
@pytest.mark.parametrize("name", MIXTURES)
def test_by_definition(name: str, instruction_set: str) -> None:
    x, mixed = numbers(37, HIDDEN), MIXTURES[name]
    experts = layer(mixed, ROUTER, instruction_set, 2)
    assert relative_error(experts(x), mixed(x, x @ ROUTER.T)) < 2e-5
    assert row_depends_on_others(experts, x) == []
    assert np.array_equal(layer(mixed, ROUTER, instruction_set, 1)(x), experts(x))


def test_mistakes_are_noticed() -> None:
    """In whom a row goes to, in how much each counts, and in the order of gate and up."""
    x, mixed = numbers(37, HIDDEN), MIXTURES["sigmoid"]
    got = layer(mixed, ROUTER, INSTRUCTION_SETS[0])(x)
    for change in ({"bias": None}, {"normalised": False}, {"chosen": 2}, {"gates": mixed.ups}):
        assert relative_error(got, replace(mixed, **change)(x, x @ ROUTER.T)) > 1e-3


def test_residual_and_scale() -> None:
    x = numbers(9, HIDDEN)
    mixed = mixture(outputs=HIDDEN + 8)
    shared, router = numbers(HIDDEN + 8, HIDDEN, seed=7), ROUTER

    def both(p: Any, x: int) -> int:
        residual = p.linear(x, [matrix(shared)])
        return record(p, x, p.linear(x, [matrix(router)]), mixed, residual=residual, scale=0.25)

    expected = x @ shared.T.astype(np.float64) + 0.25 * mixed(x, x @ router.T)
    assert relative_error(chain(HIDDEN, both)(x), expected) < 1e-5


@every_set
def test_formats_that_differ(instruction_set: str) -> None:
    """Gate and up, or down, read other forms of their inputs, and each expert's bias is its own."""
    mixed, x = mixture(), numbers(20, HIDDEN)
    coarse, values = coarse_matrix(mixed.ups.reshape(-1, HIDDEN))
    bias = numbers(COUNT * 48, seed=8)

    def both(p: Any, x: int) -> int:
        gates, downs = stacked(mixed.gates), matrix(mixed.downs.reshape(-1, INNER), bias)
        scores = p.linear(x, [matrix(ROUTER)])
        return int(p.experts(x, scores, gates, coarse, downs, count=COUNT, chosen=1, activation="silu"))

    exact = replace(mixed, chosen=1, ups=values.reshape(mixed.ups.shape))
    chosen = (x @ ROUTER.T).argmax(axis=1)
    expected = exact(x, x @ ROUTER.T) + bias.reshape(COUNT, 48)[chosen]
    experts = chain(HIDDEN, both, instruction_set, 2)
    assert relative_error(experts(x), expected) < 2e-2  # x is rounded to 8 bits for ups
    assert row_depends_on_others(experts, x) == []


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 9),
    chosen=st.integers(1, 9),
    rows=st.integers(1, 50),
    inner=st.sampled_from((16, 48)),
    logits=st.integers(0, 50),
    threads=st.integers(1, 3),
    instruction_set=st.sampled_from(INSTRUCTION_SETS),
)
def test_any_shape(
    count: int, chosen: int, rows: int, inner: int, logits: int, threads: int, instruction_set: str
) -> None:
    mixed = replace(mixture(count, inner), chosen=min(count, chosen))
    router, x = numbers(count, HIDDEN, seed=4), numbers(rows, HIDDEN, seed=rows)
    p = program(instruction_set, threads)
    last = p.select_logit_rows(p.input(HIDDEN))
    p.output(record(p, last, p.linear(last, [matrix(router)]), mixed))
    wanted = min(logits, rows)
    got = p.run([0] * rows, [0], [rows], [[]], [wanted], x)
    assert got.shape == (wanted, 48)
    if wanted:
        seen = x[rows - wanted :]
        assert relative_error(got, mixed(seen, seen @ router.T)) < 2e-5


def test_ties_and_scores_that_are_not_numbers() -> None:
    """The lower number of equal ones; NaN for a row whose scores are none, and nothing of the others."""
    mixed, x = replace(mixture(), chosen=1), numbers(4, HIDDEN)
    experts = layer(mixed, np.zeros((COUNT, HIDDEN), np.float32), INSTRUCTION_SETS[0])
    assert relative_error(experts(x), mixed(x, np.zeros((4, COUNT)))) < 1e-5
    experts = layer(mixed, ROUTER, INSTRUCTION_SETS[0])
    before = experts(x)
    for value in (nan, inf):
        x[2, 5] = value
        after = experts(x)
        assert bool(np.isnan(after[2]).all())
        assert np.array_equal(after[[0, 1, 3]], before[[0, 1, 3]])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "count = 0"),
    ({"count": 5}, "gates has 192 outputs; 5 experts need the same multiple of 16"),
    ({"chosen": 0}, "chosen = 0 has to be 1 to 6"),
    ({"chosen": 7}, "chosen = 7 has to be 1 to 6"),
    ({"count": 3, "chosen": 2}, "downs has 32 inputs; an expert of gates has 64"),
    ({"activation": "relu"}, "activation = 'relu'"),
    ({"scoring": "none"}, "scoring = 'none'.*softmax, sigmoid"),
    ({"factor": nan}, "factor = nan"),
    ({"bias": np.zeros(5, np.float32)}, "bias has 5 values; count = 6"),
    ({"bias": np.full(6, inf, np.float32)}, "a value of bias = inf"),
    ({"scale": inf}, "scale = inf"),
    ({"residual": 0}, "residual has width 40.* 48"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    p = program()
    x = p.input(HIDDEN)
    scores = p.linear(x, [matrix(ROUTER)])
    with pytest.raises(ValueError, match=message):
        record(p, x, scores, mixture(), **changes)


def test_weights_that_do_not_fit_are_refused() -> None:
    p = program()
    x = p.input(HIDDEN)
    scores = p.linear(x, [matrix(ROUTER)])
    good = [stacked(w) for w in (mixture().gates, mixture().ups, mixture().downs)]
    how = {"count": COUNT, "chosen": 2, "activation": "silu"}
    with pytest.raises(ValueError, match="scores has width 40; it has to have count = 6"):
        p.experts(x, x, *good, **how)
    with pytest.raises(ValueError, match="an expert of gates has 32 outputs, one of ups 16"):
        p.experts(x, scores, good[0], stacked(mixture(inner=16).ups), good[2], **how)
    with pytest.raises(ValueError, match="up has 48 inputs; x has width 40"):
        p.experts(x, scores, good[0], stacked(mixture(hidden=48).ups), good[2], **how)
