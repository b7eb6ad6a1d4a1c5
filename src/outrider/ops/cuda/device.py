"""What is asked of a GPU's driver. All else is Triton, and PyTorch's tensors.

PyTorch calls the GPUs of ROCm 'cuda' too. Another kind of device has its own calls, and they belong here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.errors import ConfigError, OutriderError
from outrider.messages import reason

ALIGNED = 16  # bytes: Triton compiles a kernel anew for a pointer that is less aligned
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels in Python on the CPU. It decides so when a kernel is defined."""
if INTERPRETED:
    from outrider.ops.cuda.interpreter import multiply_rows_alone

    multiply_rows_alone()


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


def computing_on(device: torch.device) -> AbstractContextManager[Any]:
    """What is launched inside goes to this device, in whichever thread."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Inbox:
    """Memory on the device for arrays of the host, of the same names, types and shapes each time."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], device: torch.device) -> None:
        self._starts, end = dict[str, int](), 0
        for name, array in arrays.items():
            self._starts[name] = end
            end += -(-array.nbytes // ALIGNED) * ALIGNED
        self._memory = torch.empty(end, dtype=torch.uint8, device=device)
        self.tensors = {name: self._view(name, array) for name, array in arrays.items()}

    def fill(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Copy the arrays there, in one transfer for which nobody waits."""
        on_gpu = self._memory.device.type == "cuda"
        staged = torch.empty(len(self._memory), dtype=torch.uint8, pin_memory=on_gpu)
        memory = staged.numpy()
        for name, first in self._starts.items():
            array = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
            memory[first : first + len(array)] = array
        self._memory.copy_(staged, non_blocking=True)  # PyTorch gives the staged bytes to nobody until then

    def _view(self, name: str, array: NDArray[Any]) -> Tensor:
        first, kind = self._starts[name], torch.from_numpy(np.empty(0, array.dtype)).dtype
        return self._memory[first : first + array.nbytes].view(kind).view(array.shape)


def upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copies of the arrays on the device; nobody waits for them."""
    inbox = Inbox(arrays, device)
    inbox.fill(arrays)
    return inbox.tensors


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of one array on the device; nobody waits for it."""
    return upload({"": array}, device)[""]


class LaunchRecorder:
    """Records what is launched, so that it can be launched again as a whole: on a GPU, as a CUDA graph.

    What is allocated while something is recorded comes from one pool for all that this recorder has recorded.
    So they may overwrite each other's memory, and what is to be read later has to lie elsewhere. Where there
    are no graphs, to launch it again is to do it again.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._first: torch.cuda.CUDAGraph | None = None  # its pool is everybody's, and lives as long as it

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What launches it again. work: has run before, so that all of its kernels are compiled; it waits for
        nothing, and computes with nothing of the host that changes. Raises OutriderError where the device
        refuses to."""
        if self._stream is None:
            return work
        graph, pool = torch.cuda.CUDAGraph(), None if self._first is None else self._first.pool()
        # Other threads of a server may ask of the driver what this one may not while it records.
        try:
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise OutriderError(
                f"a pass could not be recorded as a CUDA graph: {reason(error)}; enforce_eager = True gives "
                "the same tokens without graphs"
            ) from error
        self._first = self._first or graph
        return graph.replay
