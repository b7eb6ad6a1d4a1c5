"""A weight in one of the formats that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32  # inputs that share a scale

Format = Literal["float32", "bfloat16", "int8", "int8_channel", "int4", "int4_min"]
BITS: dict[Format, int] = {
    "float32": 32,
    "bfloat16": 16,
    "int8": 8,
    "int8_channel": 8,
    "int4": 4,
    "int4_min": 4,
}  # of a weight, scales aside


@dataclass(frozen=True)
class Weight:
    """A matrix [out, in].

    float32, bfloat16: `values` are the weights. The integer formats have codes, uint8 [out, in]:

    - int8: scale[group] * (code - 128), scales float16 [out, ceil(in / 32)] (GGUF's Q8_0)
    - int8_channel: scale[out] * (code - 128), scales float32 [out]
    - int4: scale[group] * (code - 8) (Q4_0)
    - int4_min: scale[group] * code + min[group], mins float16 like the scales (Q4_1)
    """

    format: Format
    values: Tensor
    scales: Tensor | None = None
    mins: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    def dequantize(self) -> Tensor:
        """float32 [out, in]."""
        if self.scales is None:
            return self.values.float()
        if self.format == "int8_channel":
            return (self.values.float() - 128) * self.scales[:, None]
        zero = {"int8": 128, "int4": 8, "int4_min": 0}[self.format]
        grouped = (groups_of(self.values) - zero) * self.scales.float()[..., None]
        if self.mins is not None:
            grouped = grouped + self.mins.float()[..., None]
        return grouped.flatten(1)[:, : self.shape[1]].contiguous()

    def slab(self, first: int, last: int) -> Weight:
        """Outputs first..last, in the same memory."""
        scales, mins = (None if part is None else part[first:last] for part in (self.scales, self.mins))
        return Weight(self.format, self.values[first:last], scales, mins)

    def rows(self, order: Tensor) -> Weight:
        """The weight with its outputs in another order."""
        scales, mins = (None if part is None else part[order] for part in (self.scales, self.mins))
        return Weight(self.format, self.values[order], scales, mins)

    def columns(self, first: int, last: int) -> Weight:
        """The weight of some of its inputs; neither end may cut a group of 32 that shares a scale."""
        if self.scales is None or self.format == "int8_channel":
            return Weight(self.format, self.values[:, first:last].contiguous(), self.scales)
        if first % GROUP or last % GROUP:
            raise ValueError(f"inputs {first} to {last} of {self.format} cut a group of {GROUP}")
        parts = (self.scales, self.mins)
        scales, mins = (
            None if part is None else part[:, first // GROUP : last // GROUP].contiguous() for part in parts
        )
        return Weight(self.format, self.values[:, first:last].contiguous(), scales, mins)


def plain(tensor: Tensor) -> Weight:
    """A float weight as it is stored; float16 and float64 as float32, which has bfloat16's range and more."""
    if tensor.dtype == torch.bfloat16:
        return Weight("bfloat16", tensor.contiguous())
    return Weight("float32", tensor.float().contiguous())


def join(weights: Sequence[Weight]) -> list[Weight]:
    """Weights [out, in] of equal inputs one below the other; neighbours of one format become one."""
    joined: list[Weight] = []
    for weight in weights:
        if joined and joined[-1].format == weight.format:
            joined[-1] = _stack(joined[-1], weight)
        else:
            joined.append(weight)
    return joined


def _stack(a: Weight, b: Weight) -> Weight:
    def both(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        return None if x is None or y is None else torch.cat([x, y])

    return Weight(a.format, torch.cat([a.values, b.values]), both(a.scales, b.scales), both(a.mins, b.mins))


def groups_of(values: Tensor) -> Tensor:
    """float32 [out, groups, 32], the last group padded with zeros."""
    return F.pad(values.float(), (0, -values.shape[1] % GROUP)).view(len(values), -1, GROUP)
