"""How fast this machine reads memory, which bounds how fast it decodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from outrider.ops.cpu.extension import physical_cores

ROUNDS = 12
PASSES = 4  # over all memory in a round, so that handing out the work does not count
LEAST, EACH = 2**28, 2**24  # bytes in all, and of each of many threads: more than caches hold


def read_bandwidth(threads: int | None = None, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes a second: the best of several rounds in which all threads read memory that no cache holds.

    It takes about half a second. The memory lies in huge pages where the system has them, as weights do
    (`weight_memory` in native/matrix.cpp): small pages take a tenth to a third of the speed. A bare loop of
    AVX-512 loads with prefetch reads no faster than NumPy.

    threads: None for the physical cores, which are what the kernels use.
    """
    threads = threads or physical_cores()
    memory = resident(max(LEAST, threads * EACH))
    parts = np.array_split(memory, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            start = clock()
            list(pool.map(_read, parts))
            best = max(best, PASSES * memory.nbytes / (clock() - start))
    return best


def resident(size: int) -> NDArray[np.uint64]:
    """So many bytes of memory, all of it written. From 4 MiB on, NumPy asks the system for huge pages."""
    return np.ones(size // 8, dtype=np.uint64)


def _read(part: NDArray[np.uint64]) -> None:
    for _ in range(PASSES):
        np.bitwise_or.reduce(part)  # without the interpreter's lock
