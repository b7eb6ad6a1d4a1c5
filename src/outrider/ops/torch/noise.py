"""The counter-based noise of `outrider.ops.noise` as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.ops.noise import FACTORS, GOLDEN, SHIFTS


def gumbel(keys: Sequence[int], tokens: Tensor) -> Tensor:
    """Standard Gumbel variates: float32 [keys, tokens].

    keys: of positions, unsigned numbers of 64 bits; tokens: int64, the ids whose noise it is.
    """
    signed = torch.tensor([_signed(key) for key in keys], dtype=torch.int64, device=tokens.device)
    uniforms = _uniform(_mix(signed[:, None] + (tokens + 1) * _signed(GOLDEN)))
    # -log(-log(1 - u)): the large values, which win, come from small u, where float32 is exact enough.
    return uniforms.neg_().log1p_().neg_().log_().neg_()


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix(values: Tensor) -> Tensor:
    """`mix` on int64, in place; products wrap as they do on 64-bit integers without a sign."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        values = values.bitwise_xor_(_shift_right(values, shift)).mul_(_signed(factor))
    return values.bitwise_xor_(_shift_right(values, SHIFTS[2]))


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """A logical shift: PyTorch's own copies the sign."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _uniform(bits: Tensor) -> Tensor:
    """The upper 52 bits as float32 in (0, 1), both ends excluded."""
    uniforms = (_shift_right(bits, 12).double() + 0.5).mul_(2.0**-52).float()
    return uniforms.clamp_(max=1 - 2.0**-24)
