"""A matrix in one of the formats, as it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Bytes, Floats, Format


@dataclass(frozen=True)
class Weight:
    """A matrix [outputs, inputs], whose bytes may lie in a mapped file and are read when they are used.

    data: uint8 [outputs, format.row_bytes(inputs)], each row contiguous. order: int32 [outputs], the stored
    row of each output, where they differ. columns: int32 [inputs], the input that each stored column belongs
    to, where they differ (GPTQ's `desc_act` sorts inputs into groups).
    """

    format: Format
    data: Bytes
    inputs: int
    order: NDArray[np.int32] | None = None
    columns: NDArray[np.int32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.data) if self.order is None else len(self.order), self.inputs

    def dequantize(self) -> Floats:
        """float32 [outputs, inputs]."""
        data = self.data if self.order is None else self.data[self.order]
        stored = self.format.decode(data)[:, : self.inputs]
        if self.columns is None:
            return np.ascontiguousarray(stored)
        values = np.empty_like(stored)
        values[:, self.columns] = stored
        return values

    def rows(self, first: int, last: int, step: int = 1) -> Weight:
        """Outputs first..last, or every `step`-th of them, in the same memory."""
        if self.order is None:
            return replace(self, data=self.data[first:last:step])
        return replace(self, order=self.order[first:last:step])

    def turned(self, chosen: slice | NDArray[np.int32]) -> Weight:
        """The chosen inputs as outputs; of a format in which each number stands by itself."""
        numbers = self.data.reshape(len(self.data), self.inputs, self.format.size)[:, chosen]
        data = np.ascontiguousarray(numbers.swapaxes(0, 1)).reshape(numbers.shape[1], -1)
        return Weight(self.format, data, len(self.data))

    def reordered(self, order: NDArray[np.int32]) -> Weight:
        """The weight whose output i is output `order[i]` of this one."""
        return replace(self, order=order if self.order is None else self.order[order])

    def part(self, first: int, last: int) -> Weight:
        """The weight of inputs first..last. Raises ValueError where an end cuts a block that shares a
        scale."""
        block, size, head = self.format.block, self.format.size, self.format.head
        if first % block or (last % block and last != self.inputs) or self.columns is not None:
            raise ValueError(f"inputs {first} to {last} of {self.format.name} cut a block of {block}")
        ends = head + first // block * size, head + -(-last // block) * size
        data = self.data[:, ends[0] : ends[1]]
        if head:
            data = np.concatenate([self.data[:, :head], data], axis=1)
        return replace(self, data=data, inputs=last - first)


def neighbours(weights: Sequence[Weight], to: Format | None = None) -> Iterator[tuple[Weight, ...]]:
    """Weights one below the other, cut where the format or the order of inputs changes: what can
    lie in one matrix. to: the format that all of them become, if any."""
    for _, alike in groupby(weights, lambda weight: (to or weight.format, id(weight.columns))):
        yield tuple(alike)
