"""Giving memory back to the system that the process holds and does not need."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

from numpy.typing import NDArray


def release_pages(array: NDArray[Any]) -> None:
    """Free the memory of a contiguous array until it is written again; its content is lost, or read again
    from the file that it is mapped from.

    Only whole pages go, so that what lies beside the array stays. Nothing is freed elsewhere than on Linux.
    """
    begin, end = array.ctypes.data, array.ctypes.data + array.nbytes
    begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    end = end // mmap.PAGESIZE * mmap.PAGESIZE
    if sys.platform == "linux" and begin < end:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def release_freed() -> None:
    """Give back what was freed but is kept by the C library for allocations to come, where that is glibc.

    It keeps some tens of megabytes after many temporary tensors, as they come up when a model is loaded.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))
