"""A layer with a window reads the blocks that its window reaches into, and no others."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.shapes import AttentionShape
from tests.ops.oracle import Attention
from tests.ops.programs import INSTRUCTION_SETS, Kind, attend, numbers, program

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or mmap.PAGESIZE != 4096,
    reason="/proc/self/pagemap tells which pages were touched",
)

BLOCKS, LAST = 40, 35 * 32 + 9  # the row is in block 35
SIZES: dict[Kind, tuple[int, int]] = {"float32": (32, 32), "bfloat16": (64, 32), "int8": (124, 32)}
"""head_dim and block_size with which a block of one head is a page."""


def pages_touched(array: Any) -> set[int]:
    """The numbers of an array's pages that were read or written since it was made."""
    first = array.ctypes.data // mmap.PAGESIZE
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(8 * first)
        entries = np.frombuffer(file.read(8 * (array.nbytes // mmap.PAGESIZE)), np.uint64)
    return set(np.flatnonzero(entries >> np.uint64(63)).tolist())


def blocks_read(kind: Kind, window: int | None, instruction_set: str, rows: int) -> tuple[set[int], set[int]]:
    """By some rows, the last of which is at LAST: of keys, and of values."""
    head_dim, block_size = SIZES[kind]
    attention = Attention(2, 1, head_dim, 0.1, window=window)
    shape = AttentionShape(heads=2, kv_heads=1, head_dim=head_dim, scale=0.1)
    (layer,) = NativeBackend(cache_dtype=kind, num_threads=1).new_cache(BLOCKS, block_size, [shape])
    p = program(instruction_set, 2)
    p.output(attend(p, p.input(attention.width), attention, layer.keys, layer.values))
    p.run([0] * rows, [LAST + 1 - rows], [rows], [[list(range(BLOCKS))]], [0], numbers(rows, attention.width))
    return pages_touched(layer.keys), pages_touched(layer.values)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("kind", SIZES)
def test_blocks_that_are_read(kind: Kind, rows: int, instruction_set: str) -> None:
    block_size = SIZES[kind][1]
    for window in (1, 20, 100, 320, None):
        first = 0 if window is None else max(0, LAST + 1 - rows - window + 1)
        reached = set(range(first // block_size, LAST // block_size + 1))
        assert blocks_read(kind, window, instruction_set, rows) == (reached, reached)


def test_the_count_notices_a_block_too_many() -> None:
    seen, _ = blocks_read("bfloat16", 100, INSTRUCTION_SETS[0], 1)
    wider, _ = blocks_read("bfloat16", 100 + 32, INSTRUCTION_SETS[0], 1)
    assert len(wider) == len(seen) + 1
