"""What a weight format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
"""Rows of a matrix as they are stored: uint8 [rows, bytes of a row]."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """How a row of weights is stored: `head` bytes, then blocks of `size` bytes for `block` inputs each.

    name: as GGUF and safetensors name it, and the native kernels do. decode: `Bytes` -> float32
    [rows, inputs rounded up to whole blocks]. encode: the nearest `Bytes` of float32 [rows, inputs]; None
    where nothing is ever turned into this format.
    """

    name: str
    block: int
    size: int
    decode: Callable[[Bytes], Floats]
    encode: Callable[[Floats], Bytes] | None = None
    head: int = 0

    def row_bytes(self, inputs: int) -> int:
        """Bytes of a row of `inputs` weights."""
        return self.head + -(-inputs // self.block) * self.size

    @property
    def bits(self) -> float:
        """Bits of a weight, scales included, the head aside."""
        return 8 * self.size / self.block

    @property
    def is_float(self) -> bool:
        """Whether each weight is a floating-point number by itself, without a scale."""
        return self.block == 1 and not self.head

    def __repr__(self) -> str:
        return self.name
