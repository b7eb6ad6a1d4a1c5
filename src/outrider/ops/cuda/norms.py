"""Norms: a program a row, whose sum has one order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.ops.cuda.device import launch


@triton.jit
def _norm(x, weight, residual, out, width, heads, eps, padded: tl.constexpr, added: tl.constexpr):
    """Program i norms part i of x, part i % heads of a row."""
    part, n = tl.program_id(0).to(tl.int64), tl.arange(0, padded)
    real, at = n < width, part * width + n
    value = tl.load(x + at, mask=real, other=0.0).to(tl.float32)
    mean = tl.sum(value * value, 0) / width
    factor = tl.load(weight + (part % heads) * width + n, mask=real, other=0.0)
    y = tl.div_rn(value, tl.sqrt_rn(mean + eps)) * factor
    if added:
        y = y + tl.load(residual + at, mask=real, other=0.0)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=real)


def norm(
    x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, residual: Tensor | None = None, heads: int = 1
) -> Tensor:
    """Root-mean-square norm of each head of x [rows, heads * width]. weight: float32 [heads * width].

    The result has `dtype`, or is float32 where it is added to a residual.
    """
    width = x.shape[1] // heads
    out = torch.empty_like(x, dtype=dtype if residual is None else torch.float32)
    launch(_norm, (len(x) * heads,),
        x, weight, x if residual is None else residual, out, width, heads, eps,
        triton.next_power_of_2(width), residual is not None,
    )  # fmt: skip
    return out
