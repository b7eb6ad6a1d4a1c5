"""How fast linear layers of a large model read their weights: where a pass loses its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from benchmarks.gpu.card import Card
from benchmarks.gpu.drawn import drawn_matrix
from benchmarks.gpu.report import Finding
from benchmarks.gpu.sizes import Sizes
from benchmarks.random_models import Shape
from outrider.formats.registry import FORMATS
from outrider.ops.cuda.linear import linear
from outrider.ops.cuda.matrix import GpuMatrix

ROWS = (1, 8, 32)
SHARE = 8  # of the memory that the bandwidth is measured on: copies of a weight that no cache holds together


def shapes(of: Shape) -> dict[str, tuple[int, int]]:
    """Outputs and inputs."""
    kv = of.kv_heads * of.hidden // of.heads
    return {
        "qkv": (of.hidden + 2 * kv, of.hidden),
        "o": (of.hidden, of.hidden),
        "gate": (of.inner, of.hidden),
        "down": (of.hidden, of.inner),
        "output": (of.vocab, of.hidden),
    }


def layers(card: Card, sizes: Sizes) -> Iterator[Finding]:
    """Bytes a second of each format and layer, by rows."""
    for name in sizes.layers:
        format = FORMATS[name]
        for layer, (outputs, inputs) in shapes(sizes.large).items():
            count = max(1, sizes.memory // SHARE // (outputs * format.row_bytes(inputs)))
            matrices = [drawn_matrix(format, outputs, inputs, card.device) for _ in range(count)]
            speeds = {str(rows): speed(card, matrices, rows, sizes.rounds) for rows in ROWS}
            yield f"{name} {layer}", speeds


def speed(card: Card, matrices: Sequence[GpuMatrix], rows: int, rounds: int) -> float:
    """Bytes a second of weights that are read one after the other, all in one launch."""
    x = torch.randn(rows, matrices[0].inputs, device=card.device, dtype=torch.bfloat16)

    def work() -> None:
        for matrix in matrices:
            linear(x, [matrix])

    return sum(matrix.nbytes for matrix in matrices) / card.quickest(card.repeatable(work), rounds)
