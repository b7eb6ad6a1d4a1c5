"""What is asked of a GPU's driver. All else is Triton, and PyTorch's tensors.

PyTorch calls the GPUs of ROCm 'cuda' too. Another kind of device has its own calls, and they belong here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.errors import ConfigError

ALIGNED = 8  # bytes: the largest number that is staged
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels in Python on the CPU. It decides so when a kernel is defined."""


def open_device(name: str) -> torch.device:
    """The device by its name. Raises ConfigError for one that Triton does not compute on."""
    device = torch.device(name)
    if device.type == "cpu" and not INTERPRETED:
        raise ConfigError(
            "backend = 'triton' with device = 'cpu': Triton's kernels run on a GPU; give device = 'cuda', or "
            "set TRITON_INTERPRET=1 in the environment to have them interpreted, very slowly"
        )
    return device


def model_name(device: torch.device) -> str:
    """What the device calls itself; empty for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def memory(device: str) -> tuple[int, int]:
    """Bytes of a device in all, and those that no process has. In the interpreter they are the machine's.
    Raises ConfigError for a device that cannot be used."""
    if open_device(device).type == "cpu":
        machine = psutil.virtual_memory()
        return machine.total, machine.available
    free, total = torch.cuda.mem_get_info(device)
    return total, free


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on a grid of programs.

    Products and sums are not fused unless a kernel says so: else a compiler would decide it anew for each
    number of rows.
    """
    kernel[grid](*arguments, **constants, enable_fp_fusion=False)


def upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copies of the arrays on the device, in one transfer for which nobody waits."""
    sizes = [-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays.values()]
    staged = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    memory, first = staged.numpy(), 0
    for array, size in zip(arrays.values(), sizes, strict=True):
        memory[first : first + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        first += size
    there, first, views = staged.to(device, non_blocking=True), 0, dict[str, Tensor]()
    for (name, array), size in zip(arrays.items(), sizes, strict=True):
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        views[name] = there[first : first + array.nbytes].view(kind).view(array.shape)
        first += size
    return views
