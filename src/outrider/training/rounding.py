"""Weights as they will be stored, while they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from outrider.formats.grouped import GROUP


@contextmanager
def rounded(net: nn.Module, rounding: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Meanwhile every parameter has the value that `rounding` gives it."""
    exact = {parameter: parameter.data for parameter in net.parameters()}
    try:
        for parameter, values in exact.items():
            parameter.data = rounding(values)
        yield
    finally:
        for parameter, values in exact.items():
            parameter.data = values


def in_bfloat16(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def in_4_bits(values: Tensor) -> Tensor:
    """A matrix rounded to 4 bits on its own device, which `head_checkpoint.quantized` then stores unchanged.

    The scale of a group makes -8 of the largest value; to look for a better one, as when a file is converted,
    takes too long for each step of training, and gave a worse head.
    """
    if values.dim() != 2:
        return values.half().float()
    groups = values.view(-1, GROUP)
    largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    scale = (largest / -8).half().float()
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    return ((groups * inverse).round().clamp(-8, 7) * scale).view_as(values)
