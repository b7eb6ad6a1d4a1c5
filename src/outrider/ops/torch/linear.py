"""Linear layers in PyTorch, packed by oneDNN where it computes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor], Tensor]

ROWS_HINT = 8  # what oneDNN lays the weight out for: the few rows of a verification


def pack_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A callable [rows, in] -> [rows, out] for a weight [out, in]."""
    if weight.device.type == "cpu" and _has_onednn(weight.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        return partial(_onednn_linear, packed, bias)
    return partial(_library_linear, weight, bias)


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes with weights of this type here: for bfloat16 it needs more than AVX2."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _onednn_linear(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """oneDNN's kernel for packed weights, whose cost hardly rises over the first rows.

    PyTorch's own `linear` in float32 costs twice as much for two rows as for one, which would eat what
    speculation gains. One row is computed as two because oneDNN has another kernel, with another order of
    summation, for a single row; from two rows on, row i of its float32 output does not depend on the others.
    It also keeps a kernel for every number of rows that it has met, which for a mixture's experts were
    hundreds of megabytes: so there are few such numbers.
    """
    rows = len(x)
    computed = _rounded(rows)
    if computed > rows:
        x = F.pad(x, (0, 0, 0, computed - rows))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y[:rows]


def _rounded(rows: int) -> int:
    """The number of rows up to a multiple of about an eighth of it, and at least 2."""
    step = 1 if rows <= ROWS_HINT else 2 ** (rows.bit_length() - 4)
    return max(2, -(-rows // step) * step)


def _library_linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)
