"""Norms of heads by themselves, on both backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outrider.ops.span import Span
from tests.ops.oracle import Array
from tests.ops.programs import numbers
from tests.ops.seam import BACKENDS, backend

EPS = 1e-5


def normed(name: str, x: Array, weight: Array, heads: int) -> Array:
    made = backend(name)

    def definition(ops: Any, caches: Any) -> Any:
        y = ops.norm_heads(ops.input(x.shape[1]), made.vector(weight), heads, EPS)
        return ops.select_logit_rows(y)

    rows = len(x)
    return made.compile(definition, (), 16)([Span([0] * rows, 0, (), rows)], x).logits


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (33, 3), (7, 8)])
def test_each_head_has_its_weight(name: str, dim: int, heads: int) -> None:
    x, weight = numbers(6, heads * dim, seed=1), numbers(heads * dim, seed=2)
    each = x.astype(np.float64).reshape(6, heads, dim)
    expected = each / np.sqrt((each**2).mean(axis=-1, keepdims=True) + EPS) * weight.reshape(heads, dim)
    np.testing.assert_allclose(normed(name, x, weight, heads), expected.reshape(6, -1), rtol=1e-5, atol=1e-6)
