"""Giving pages of memory back to the system while the tensor that they belong to stays."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor


def release_pages(tensor: Tensor) -> None:
    """Free the memory of a contiguous tensor until it is written again; its content is lost.

    Only whole pages go, so that what lies beside the tensor stays. Nothing is freed elsewhere than on the CPU
    and on Linux.
    """
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    end = end // mmap.PAGESIZE * mmap.PAGESIZE
    if sys.platform == "linux" and tensor.device.type == "cpu" and begin < end:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
