"""Turning weights into another format."""

from __future__ import annotations

import numpy as np

from outrider.formats.format import Format
from outrider.formats.weight import Weight

SLAB = 2**18  # weights: a megabyte in float32, of which a conversion has several


def convert(weight: Weight, format: Format, slab: int = SLAB) -> Weight:
    """The nearest weight in `format`; the weight itself if it is in that format already.

    It is made a few rows at a time: what a conversion needs in between is many times the weight, and would
    be the peak of the process with a large table of tokens. slab: weights at a time. Raises ValueError for a
    format that nothing is turned into.
    """
    if weight.format == format:
        return weight
    if format.encode is None:
        raise ValueError(f"nothing is turned into {format.name}")
    rows, inputs = weight.shape
    data = np.empty((rows, format.row_bytes(inputs)), np.uint8)
    step = max(1, slab // max(1, inputs))
    for first in range(0, rows, step):
        data[first : first + step] = format.encode(weight.rows(first, first + step).dequantize())
    return Weight(format, data, inputs)
