"""Work that is recorded once and launched again on other numbers, which lie in the same memory.

Its inputs are copied to where they were when it was recorded, and its results lie where they lay then. So a
step costs the host a few copies and one launch, and not hundreds of launches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.cuda.device import Inbox, LaunchRecorder

MOST = 128  # works that are kept; the one that was used longest ago makes room

Inputs = Mapping[str, NDArray[Any] | Tensor]
"""Arrays of the host, and tensors of the device."""
Work = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""From inputs on the device to results there. It neither waits for the device nor holds numbers that another
run under the same key would have otherwise."""


class _Memory:
    """Where inputs of these shapes lie on the device."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self._inbox = Inbox(_of_host(inputs), device)
        self._given = {name: torch.empty_like(one) for name, one in inputs.items() if isinstance(one, Tensor)}
        self.tensors = {**self._inbox.tensors, **self._given}

    def fill(self, inputs: Inputs) -> None:
        self._inbox.fill(_of_host(inputs))
        for name, memory in self._given.items():
            memory.copy_(inputs[name])  # type: ignore[arg-type]


@dataclass
class _Kept:
    """results: where they lie; None until the work has run. again: launches it; None until it is recorded."""

    memory: _Memory
    work: Work
    results: tuple[Tensor, ...] | None = None
    again: Callable[[], None] | None = None

    def launch(self) -> None:
        assert self.results is not None, "it has run before"
        for memory, result in zip(self.results, self.work(self.memory.tensors), strict=True):
            memory.copy_(result)


class Graphs:
    """What was recorded on one device, by its key. Everything runs on one stream, one after the other.

    eager: whether nothing is recorded, and all work runs as it is.
    """

    def __init__(self, device: torch.device, *, eager: bool = False) -> None:
        self.device = device
        self._eager = eager
        self._recorder = LaunchRecorder(device)
        self._kept = OrderedDict[Hashable, _Kept]()
        self._rooms = dict[Hashable, Tensor]()

    def run(self, key: tuple[Hashable, ...] | None, inputs: Inputs, work: Work) -> tuple[Tensor, ...]:
        """The results of `work`, good until the next run of a key that begins alike.

        key: with the kinds and shapes of the inputs, all that decides what is launched; None: it is too large
        to be kept. The first time work runs as it is, which compiles its kernels; the second time it is
        recorded. Raises OutriderError where the device refuses that.
        """
        if key is None or self._eager:
            memory = _Memory(inputs, self.device)
            memory.fill(inputs)
            return work(memory.tensors)
        sizes = ((name, type(one), *one.shape) for name, one in inputs.items())
        kept = self._found((key, *sizes), inputs, work)
        kept.memory.fill(inputs)
        if kept.results is None:
            made = work(kept.memory.tensors)
            kept.results = tuple(self._room(key[0], number, one) for number, one in enumerate(made))
            for room, result in zip(kept.results, made, strict=True):
                room.copy_(result)
        else:
            kept.again = kept.again or self._recorder.record(kept.launch)
            kept.again()
        return kept.results

    def holds(self, results: Tensor) -> bool:
        """Whether these lie where those of work that is kept lie."""
        return any(room.data_ptr() == results.data_ptr() for room in self._rooms.values())

    def _found(self, key: Hashable, inputs: Inputs, work: Work) -> _Kept:
        if key not in self._kept:
            self._kept[key] = _Kept(_Memory(inputs, self.device), work)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _room(self, kind: Hashable, number: int, like: Tensor) -> Tensor:
        """Memory of a result, which works of one kind share whose results have this shape."""
        return self._rooms.setdefault((kind, number, like.shape, like.dtype), torch.empty_like(like))


def _of_host(inputs: Inputs) -> dict[str, NDArray[Any]]:
    return {name: one for name, one in inputs.items() if isinstance(one, np.ndarray)}
