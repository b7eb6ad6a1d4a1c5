"""Linear layers in PyTorch, packed by oneDNN where it computes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor], Tensor]

PACKED_DTYPES = (torch.float32, torch.bfloat16)
ROWS_HINT = 8  # what oneDNN lays the weight out for: the few rows of a verification


def pack_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A callable [rows, in] -> [rows, out] for a weight [out, in]."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if onednn and weight.device.type == "cpu" and weight.dtype in PACKED_DTYPES:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        return partial(_onednn_linear, packed, bias)
    return partial(_library_linear, weight, bias)


def _onednn_linear(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """oneDNN's kernel for packed weights, whose cost hardly rises over the first rows.

    PyTorch's own `linear` in float32 costs twice as much for two rows as for one, which would eat what
    speculation gains. One row is computed as two because oneDNN has another kernel, with another order of
    summation, for a single row; from two rows on, row i of its float32 output does not depend on the others.
    """
    rows = len(x)
    if rows == 1:
        x = F.pad(x, (0, 0, 0, 1))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y[:rows]


def _library_linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)
