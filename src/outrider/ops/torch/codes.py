"""K and V in 8 bits: codes of each position and head, and the float32 that they are multiplied by.

K is spread over its dimensions before, and so is q, which leaves their products what they are.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from outrider.ops.base import SCALE_BYTES

LEAST = 2.0**-121  # what is smaller is zero: 127 / x is not finite


def spread(x: Tensor) -> Tensor:
    """x [..., head_dim] times an orthogonal matrix: Sylvester's Hadamard matrix, over as many dimensions at
    a time as a power of two divides head_dim into (Ashkboos et al., QuaRot, 2024)."""
    size = x.shape[-1] & -x.shape[-1]
    parts = x.reshape(*x.shape[:-1], -1, size)
    return (parts @ _hadamard(size).to(x)).flatten(-2)


def packed(x: Tensor) -> Tensor:
    """int8 [..., head_dim + SCALE_BYTES] of x [..., head_dim]. A scale is NaN where a number is NaN or
    infinite."""
    x = x.float()
    largest = x.abs().amax(dim=-1, keepdim=True)
    is_zero = ~(largest >= LEAST)
    scale = torch.where(is_zero, 0, largest / 127) + (x * 0).sum(dim=-1, keepdim=True)
    codes = torch.round(x * torch.where(is_zero, 0, 127 / largest)).nan_to_num().clamp(-127, 127)
    return torch.cat([codes.to(torch.int8), scale.contiguous().view(torch.int8)], dim=-1)


def unpacked(stored: Tensor) -> Tensor:
    """float32 [..., head_dim] of what `packed` made."""
    scale = stored[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    return stored[..., :-SCALE_BYTES].float() * scale


@cache
def _hadamard(size: int) -> Tensor:
    found: Tensor = torch.ones(1, 1)
    while len(found) < size:
        found = torch.cat([found.repeat(1, 2), torch.cat([found, -found], dim=1)])
    return found * (1 / math.sqrt(size))
