"""Making a weight a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from outrider.quantization.weight import Weight

SLAB = 2**18  # weights: a megabyte in float32, of which a conversion has several


def by_rows(rows: int, columns: int, make: Callable[[int, int], Weight]) -> Weight:
    """The weight [rows, columns] whose rows first..last are `make(first, last)`.

    What a conversion needs in between is many times the weight, and so is never there for all rows at once:
    with a large table of tokens it would be the peak of the process.
    """
    step = max(1, SLAB // columns)
    slab = make(0, min(step, rows))
    if step >= rows:
        return slab
    whole = Weight(
        slab.format,
        slab.values.new_empty((rows, columns)),
        _room(rows, slab.scales),
        _room(rows, slab.mins),
    )
    for first in range(0, rows, step):
        last = min(first + step, rows)
        if first:
            slab = make(first, last)
        for part, into in ((slab.values, whole.values), (slab.scales, whole.scales), (slab.mins, whole.mins)):
            if part is not None and into is not None:
                into[first:last] = part
    return whole


def _room(rows: int, part: Tensor | None) -> Tensor | None:
    return None if part is None else part.new_empty((rows, *part.shape[1:]))
