"""Integer codes with a scale, and perhaps a zero point, for a group of inputs, as GPTQ and AWQ have them.

A scale that float16 cannot hold, as a few of bfloat16 may be, would have to be rounded: such a layer becomes
float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outrider.cache.pages import release_pages
from outrider.formats.convert import SLAB
from outrider.formats.encode import rows_of
from outrider.formats.floats import F32
from outrider.formats.format import Bytes, Floats, Format
from outrider.formats.grouped import Q8_0
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.formats.zero_points import u4_rows
from outrider.models.schemes_layer import StoredLayer
from outrider.models.shards import RawTensor

logger = logging.getLogger(__name__)

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """A layer's numbers, as scale * (code - zero).

    codes: outputs first..last -> [last - first, inputs], inputs in the order of their groups; zeros, and
    scales in float32: [outputs, groups]; columns: see `Weight`.
    """

    codes: Callable[[int, int], Codes]
    zeros: Codes
    scales: Floats
    columns: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class GroupedTensor:
    """A `StoredTensor` of codes of `bits`. scales: as they are stored; read: reads the layer."""

    name: str
    shape: tuple[int, int]
    file: Path
    bits: int
    group: int
    scales: RawTensor
    read: Callable[[], Groups]
    sources: Sequence[Bytes]

    @cached_property
    def format(self) -> Format:
        if self.scales.dtype != "F16":
            scales = self.scales.floats()
            with np.errstate(over="ignore"):
                exact = bool((scales.astype(np.float16) == scales).all())
            if not exact:
                logger.warning(
                    "%s: tensor %r has scales that float16 cannot hold; it takes 32 bits a weight",
                    self.file,
                    self.name,
                )
                return F32
        return Q8_0 if self.bits == 8 else FORMATS[f"U4_{block_of(self.group)}"]

    def weight(self) -> Weight:
        format, groups = self.format, self.read()
        outputs, inputs = self.shape
        data = np.empty((outputs, format.row_bytes(inputs)), np.uint8)
        step = max(8, SLAB // inputs // 8 * 8)  # 8 outputs may lie in one word
        for first in range(0, outputs, step):
            last = min(first + step, outputs)
            data[first:last] = _rows(
                format, groups.codes(first, last), groups.zeros[first:last], groups.scales[first:last]
            )
        return Weight(format, data, inputs, columns=groups.columns)

    def floats(self) -> Floats:
        return self.weight().dequantize()

    def release(self) -> None:
        for data in self.sources:
            release_pages(data)


def block_of(group: int) -> int:
    """The largest block of the U4 formats that divides a group; 0 where none does."""
    return next((block for block in (128, 64, 32) if group % block == 0), 0)


def check_group(layer: StoredLayer, end: str, inputs: int, groups: int) -> int:
    """Inputs of a group, of which there are `groups`. Raises ModelError where they do not divide.

    end: of the name of the tensor that says how many there are.
    """
    if not groups or inputs % groups or not block_of(inputs // groups):
        raise layer.error(
            end, f"has {groups} groups for {inputs} inputs; groups have to be of a multiple of 32 inputs"
        )
    return inputs // groups


def unpack(words: NDArray[np.int32], bits: int) -> Codes:
    """Codes [..., n * (32 / bits)] of words [..., n], the first in the lowest bits."""
    count = 32 // bits
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    fields = np.ascontiguousarray(words).view(np.uint32)[..., None] >> shifts
    mask = np.uint32((1 << bits) - 1)
    return (fields & mask).astype(np.uint8).reshape(*words.shape[:-1], words.shape[-1] * count)


def _rows(format: Format, codes: Codes, zeros: Codes, scales: Floats) -> Bytes:
    rows, inputs = codes.shape
    group = inputs // scales.shape[1]
    if format is F32:
        numbers = codes.reshape(rows, -1, group) - zeros[..., None].astype(np.float32)
        return (numbers * scales[..., None]).astype("<f4").reshape(rows, inputs).view(np.uint8)
    times = group // format.block
    zeros, halves = (np.repeat(part, times, axis=1) for part in (zeros, scales.astype("<f2")))
    blocks = codes.reshape(*halves.shape, format.block)
    if format is Q8_0:
        return rows_of(halves, blocks - zeros[..., None])
    return u4_rows(blocks, zeros, halves)


def columns_of(layer: StoredLayer, end: str, group: int) -> NDArray[np.int32] | None:
    """The inputs, by the groups that a tensor puts them in; None where they are in order already.

    Raises ModelError where groups are not all of `group` inputs.
    """
    index: NDArray[np.int32] = layer.parts[end].array()
    count = len(index) // group
    if index.min() < 0 or index.max() >= count or (np.bincount(index, minlength=count) != group).any():
        raise layer.error(end, f"does not put {group} inputs in each of {count} groups")
    if (index == np.arange(len(index)) // group).all():
        return None
    return np.argsort(index, kind="stable").astype(np.int32)
