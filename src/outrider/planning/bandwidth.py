"""How fast this machine reads memory, which bounds how fast it decodes."""

from __future__ import annotations

import time

import torch

from outrider.ops.cpu.extension import physical_cores

ROUNDS = 12
NUMBERS = 2**26  # float32: 256 MiB, more than caches hold


def read_bandwidth(threads: int | None = None, numbers: int = NUMBERS) -> float:
    """Bytes a second: the best of several sums over memory that no cache holds, in about a second.

    threads: None for the physical cores, which are what the kernels use.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or physical_cores())
    try:
        data = torch.ones(numbers)
        best = 0.0
        for _ in range(ROUNDS):
            start = time.perf_counter()
            data.sum()
            best = max(best, data.nbytes / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(before)
    return best
