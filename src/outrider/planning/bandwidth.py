"""How fast this machine reads memory, which bounds how fast it decodes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from outrider.machine.cores import default_threads

ROUNDS = 12
PASSES, ROUND = (
    4,
    2**26,
)  # over all memory in a round, and bytes of it at least: handing out work does not count
LEAST, EACH = 2**28, 2**24  # bytes in all, and of each of many threads: more than caches hold


def read_bandwidth(
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    *,
    size: int | None = None,
) -> float:
    """Bytes a second: the best of several rounds in which all threads read the same memory again and again.

    It takes about half a second. The memory lies in huge pages where the system has them, as weights do
    (`weight_memory` in native/matrix.cpp): small pages take a tenth to a third of the speed. A bare loop of
    AVX-512 loads with prefetch reads no faster than NumPy.

    threads: None for as many as the kernels use. size: bytes of the weights that are
    to be read, of which caches keep a part where they are small; None: more than caches hold.
    """
    threads = threads or default_threads()
    memory = resident(min(size or sys.maxsize, _uncached(threads)))
    passes = max(PASSES, ROUND // memory.nbytes)
    parts = np.array_split(memory, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            start = clock()
            list(pool.map(_read, parts, repeat(passes)))
            best = max(best, passes * memory.nbytes / (clock() - start))
    return best


def read_bandwidths(sizes: Collection[int]) -> dict[int, float]:
    """`read_bandwidth` of weights of each of these sizes; those that no cache holds are measured once.

    Fewer bytes are read no slower than more: where they seem to be, other work was in the way.
    """
    most = _uncached(default_threads())
    measured: dict[int, float] = {}
    for size in sorted({min(size, most) for size in sizes}, reverse=True):
        measured[size] = max(read_bandwidth(size=size), *measured.values(), 0.0)
    return {size: measured[min(size, most)] for size in sizes}


def _uncached(threads: int) -> int:
    return max(LEAST, threads * EACH)


def resident(size: int) -> NDArray[np.uint64]:
    """So many bytes of memory, all of it written. From 4 MiB on, NumPy asks the system for huge pages."""
    return np.ones(size // 8, dtype=np.uint64)


def _read(part: NDArray[np.uint64], passes: int) -> None:
    for _ in range(passes):
        np.bitwise_or.reduce(part)  # without the interpreter's lock
