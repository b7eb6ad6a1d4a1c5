"""The interpreter that was made faster still refuses what Triton's own does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from tests.ops.cuda import ON_GPU

pytestmark = pytest.mark.skipif(ON_GPU, reason="a GPU interprets nothing")


@triton.jit
def _squared(x, out):
    value = tl.load(x)
    tl.store(out, value * value)


@pytest.mark.parametrize(("value", "fits"), [(46_340, True), (46_341, False)])
def test_an_overflow_is_refused(value: int, fits: bool) -> None:
    kernel: Any = _squared
    x, out = (torch.tensor([number], dtype=torch.int32) for number in (value, 0))
    with nullcontext() if fits else pytest.raises(AssertionError, match="mul overflows int32"):
        kernel[(1,)](x, out)
    assert out.item() == (value**2 if fits else 0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must be a power of 2"):
        tl.block_type(tl.int32, [3])
