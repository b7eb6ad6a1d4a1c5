"""What stands for CUDA graphs where there is no GPU: a tape of what was launched.

It is played without the Python that launched it, on the memory that it had then. So what a graph would hold
fast, a number of the host for example, is held fast here too, and what cannot be recorded is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor

from outrider.ops.cuda.device import LaunchRecorder

WAITS = ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "lift_fresh", "equal")
"""Operations of PyTorch that wait for the device, or bring numbers of the host there."""


class Tape(TorchDispatchMode):
    recording: Tape | None = None

    def __init__(self) -> None:
        super().__init__()
        self._steps = list[Callable[[], Any]]()

    def __enter__(self) -> Any:
        Tape.recording = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Tape.recording = None
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{name} cannot be recorded"
        made = func(*args, **(kwargs or {}))
        self._steps.append(partial(_again, partial(func, *args, **(kwargs or {})), made))
        return made

    def launch(self, kernel: Callable[[], Any]) -> None:
        with _disable_current_modes():
            kernel()
        self._steps.append(kernel)

    def play(self) -> None:
        for step in self._steps:
            step()


def _again(operation: Callable[[], Any], made: Any) -> None:
    """The operation again, whose results go to where they were."""
    for old, new in zip(tree_leaves(made), tree_leaves(operation()), strict=True):
        if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)


def record(_: Any, work: Callable[[], None]) -> Callable[[], None]:
    """In place of `LaunchRecorder.record`."""
    with Tape() as tape:
        work()
    played: Callable[[], None] = tape.play
    return played


def record_on_tapes(patch: pytest.MonkeyPatch) -> None:
    real = GridExecutor.__call__

    def launched(executor: Any, *arguments: Any, **constants: Any) -> None:
        kernel = partial(real, executor, *arguments, **constants)
        if Tape.recording is None:
            kernel()
        else:
            Tape.recording.launch(kernel)

    patch.setattr(GridExecutor, "__call__", launched)
    patch.setattr(LaunchRecorder, "record", record)
