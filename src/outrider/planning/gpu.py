"""What kernels in Triton take of a GPU's memory, from headers alone: no GPU is asked, nor a library for one.

Weights, K and V are counted. What passes take beside them follows from how `outrider.ops.cuda` cuts its work;
what PyTorch's allocator and CUDA graphs take was not measured, and is a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from outrider.formats.format import Format
from outrider.formats.weight import Weight, neighbours
from outrider.ops.shapes import AttentionShape
from outrider.planning.ledger import Entry, Packing
from outrider.planning.passes import PassSize
from outrider.planning.process import OF_GPU

SPLIT, PIECE, SCRATCH = 512, 8, 2**11  # of attention, as ops/cuda/layout.py has them
SUMS = 512 * 64  # numbers of a row that linear layers leave to be added up: programs times their outputs
UNPACKED = 5  # bytes of a weight of few bits while it is taken apart
SEGMENT, ROUNDED = 20 * 2**20, 64  # bytes, and one part in so many, that the allocator keeps beside a model
GRAPHS = 128 * 2**20  # bytes of work that was recorded


class GpuLedger(Packing):
    """What Triton's kernels take. A weight has as many bytes there as it is stored in.

    graphs: bytes of what is recorded.
    """

    keeps = OF_GPU
    graphs = GRAPHS

    def spare(self, weights: Iterable[int]) -> int:
        return self.graphs + sum(SEGMENT + size // ROUNDED for size in weights if size)

    def workspace(self, shapes: Sequence[AttentionShape], size: PassSize) -> int:
        splits = ceil(size.positions / SPLIT)
        at_once = max(1, SCRATCH // splits // PIECE) * PIECE
        dims = ((shape.heads, 1 << (shape.head_dim - 1).bit_length()) for shape in shapes)
        row = max((4 * heads * splits * (padded + 2) for heads, padded in dims), default=0)
        return min(max(size.rows, PIECE), at_once) * row + 4 * SUMS * size.rows

    def choosing(self, vocab: int, rows: int) -> int:
        return 9 * vocab * rows  # edited and unedited ones together in a copy, and sums by digit

    def _packed(self, weights: Sequence[Weight], wanted: Format | None) -> tuple[Entry, ...]:
        entries = []
        for parts in neighbours(weights, wanted):
            format, inputs = wanted or parts[0].format, parts[0].inputs
            outputs = sum(part.shape[0] for part in parts)
            entry = Entry(format.name, outputs * format.row_bytes(inputs))
            # On the way in there are the parts, and the parts in one.
            apart = 0 if format.is_float else UNPACKED * outputs * inputs
            self.count(entry.nbytes, 2 * entry.nbytes + apart)
            entries.append(entry)
        return tuple(entries)


class EagerGpuLedger(GpuLedger):
    """What the same kernels take where each is launched by itself."""

    graphs = 0
