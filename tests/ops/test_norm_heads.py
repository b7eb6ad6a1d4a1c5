"""Norms of heads by themselves, on both backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outrider.ops.span import Span
from tests.ops.oracle import Array
from tests.ops.programs import numbers, program
from tests.ops.seam import BACKENDS, backend

EPS = 1e-5


def normed(name: str, x: Array, weight: Array, heads: int) -> Array:
    made = backend(name)

    def definition(ops: Any, caches: Any) -> Any:
        y = ops.norm_heads(ops.input(x.shape[1]), made.vector(weight), EPS, heads)
        return ops.select_logit_rows(y)

    rows = len(x)
    return made.compile(definition, (), 16)([Span([0] * rows, 0, (), rows)], x).logits


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("dim", "heads", "times"), [(8, 1, 1), (8, 1, 5), (33, 3, 1), (12, 3, 2), (7, 2, 4)])
def test_each_head_has_its_weight(name: str, dim: int, heads: int, times: int) -> None:
    x, weight = numbers(6, times * heads * dim, seed=1), numbers(heads * dim, seed=2)
    each = x.astype(np.float64).reshape(6, times, heads, dim)
    expected = each / np.sqrt((each**2).mean(axis=-1, keepdims=True) + EPS) * weight.reshape(heads, dim)
    np.testing.assert_allclose(normed(name, x, weight, heads), expected.reshape(6, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "heads", "said"),
    [
        (8, 3, "heads = 3; weight has 8 values, which have to be a multiple"),
        (8, 0, "heads = 0; weight has 8 values"),
        (5, 1, "weight has 5 values; x has width 8, which has to be a multiple"),
        (16, 2, "weight has 16 values; x has width 8"),
    ],
)
def test_what_does_not_fit(values: int, heads: int, said: str) -> None:
    p = program()
    with pytest.raises(ValueError, match=said):
        p.norm_heads(p.input(8), np.ones(values, np.float32), EPS, heads)
