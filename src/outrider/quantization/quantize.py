"""Turning weights into another format."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import Format, Weight, groups_of

QUANTIZED: dict[str, tuple[Format, Format]] = {
    # linear layers, and the table of tokens, which is often the output layer too: at 4 bits it costs quality
    "int8": ("int8_channel", "int8_channel"),
    "int4": ("int4", "int8_channel"),
}
SHRINKS = tuple(0.7 + 0.05 * i for i in range(9))  # shares of a group's range that int4 tries: 0.7 to 1.1


def convert(weight: Weight, format: Format) -> Weight:
    """The nearest weight in `format`; the weight itself if it is in that format already."""
    if weight.format == format:
        return weight
    rows, columns = weight.shape
    return by_rows(rows, columns, lambda first, last: _MAKERS[format](weight.slab(first, last).dequantize()))


def _float32(values: Tensor) -> Weight:
    return Weight("float32", values.contiguous())


def _bfloat16(values: Tensor) -> Weight:
    return Weight("bfloat16", values.bfloat16().contiguous())


def _int8(values: Tensor) -> Weight:
    """Symmetric, a scale for 32 inputs."""
    groups = groups_of(values)
    scales = (groups.abs().amax(dim=-1) / 127).half()
    return Weight("int8", _codes(groups, scales.float(), 127, 128, values), scales)


def _int8_channel(values: Tensor) -> Weight:
    """Symmetric, a scale for each output."""
    scales = values.abs().amax(dim=1) / 127
    codes = (values / _nonzero(scales)[:, None]).round_().clamp_(-127, 127).add_(128)
    return Weight("int8_channel", codes.to(torch.uint8), scales)


def _int4(values: Tensor) -> Weight:
    """Symmetric, a scale for 32 inputs: of a few candidates the one with the least squared error.

    Codes reach from -8 to 7, so the value of largest magnitude is given the end with room for it.
    """
    groups = groups_of(values)
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))[..., 0]
    best = torch.full_like(largest, torch.inf)
    scales = torch.zeros_like(largest, dtype=torch.float16)
    for share in SHRINKS:
        tried = (largest * share / -8).half()
        scale = _nonzero(tried.float())[..., None]
        error = ((groups / scale).round_().clamp_(-8, 7) * scale - groups).square_().sum(dim=-1)
        scales = torch.where(error < best, tried, scales)
        best = torch.minimum(error, best)
    return Weight("int4", _codes(groups, scales.float(), 7, 8, values), scales)


def _int4_min(values: Tensor) -> Weight:
    """A scale and a minimum for 32 inputs."""
    groups = groups_of(values)
    mins = groups.amin(dim=-1).half()
    scales = ((groups.amax(dim=-1) - mins.float()) / 15).half()
    codes = ((groups - mins.float()[..., None]) / _nonzero(scales.float())[..., None]).round_().clamp_(0, 15)
    return Weight("int4_min", _trimmed(codes, values), scales, mins)


def _codes(groups: Tensor, scales: Tensor, highest: int, zero: int, values: Tensor) -> Tensor:
    lowest = -127 if zero == 128 else -zero
    codes = (groups / _nonzero(scales)[..., None]).round_().clamp_(lowest, highest).add_(zero)
    return _trimmed(codes, values)


def _trimmed(codes: Tensor, values: Tensor) -> Tensor:
    return codes.to(torch.uint8).flatten(1)[:, : values.shape[1]].contiguous()


def _nonzero(scales: Tensor) -> Tensor:
    """Scales to divide by: a group of zeros has scale 0 and any codes will do."""
    return torch.where(scales == 0, torch.ones_like(scales), scales)


_MAKERS: dict[Format, Callable[[Tensor], Weight]] = {
    "float32": _float32,
    "bfloat16": _bfloat16,
    "int8": _int8,
    "int8_channel": _int8_channel,
    "int4": _int4,
    "int4_min": _int4_min,
}
