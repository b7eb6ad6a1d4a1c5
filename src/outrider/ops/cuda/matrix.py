"""Weights as they lie on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outrider.formats.weight import Weight
from outrider.ops.cuda.formats import GPU_FORMATS, GpuFormat, Planes


@dataclass(frozen=True)
class GpuMatrix:
    """A weight [outputs, inputs], or those of experts one below the other.

    columns: int64 [inputs], the input that each stored column belongs to, where they differ. bias: float32
    [experts * outputs].
    """

    format: GpuFormat
    planes: Planes
    outputs: int
    inputs: int
    experts: int = 1
    columns: Tensor | None = None
    bias: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.planes.nbytes


def pack_matrix(
    parts: Sequence[Weight], device: torch.device, bias: Tensor | None = None, *, experts: int = 1
) -> GpuMatrix:
    """Weights of one format, one below the other."""
    first = parts[0]
    format = GPU_FORMATS[first.format.name]
    rows = [part.data if part.order is None else part.data[part.order] for part in parts]
    data = torch.cat([torch.from_numpy(np.array(part)).to(device) for part in rows])
    columns = None if first.columns is None else torch.from_numpy(first.columns).to(device, torch.int64)
    return GpuMatrix(format, format.pack(data), len(data) // experts, first.inputs, experts, columns, bias)
