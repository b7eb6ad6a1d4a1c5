"""The device that is measured: what it is, how time is taken on it, and how fast it reads its memory."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from shutil import which

import torch
from torch import Tensor

from outrider.engine.backend import choose_device
from outrider.ops.cuda.device import INTERPRETED

PACKAGES = ("torch", "triton", "transformers", "numpy", "outrider")
ROUNDS = 5
QUERY = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


class Card:
    """A GPU, or the CPU with Triton's interpreter, where everything is of toy size and no figure means
    anything."""

    def __init__(self) -> None:
        self.name = "cpu" if INTERPRETED else choose_device("cuda")
        self.device = torch.device(self.name)
        self.toy = INTERPRETED

    def clock(self) -> float:
        """Seconds from any time on, once the device has done all that it was given."""
        if not self.toy:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def repeatable(self, work: Callable[[], object]) -> Callable[[], object]:
        """The work as one launch, which takes no longer to start than the device takes for it."""
        if self.toy:
            return work
        work()  # compiles
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def works(self) -> bool:
        """Whether it still takes work: after an access to memory that is not there, a process has lost it."""
        try:
            self.clock()
        except RuntimeError:
            return False
        return True

    def clear(self) -> None:
        """Give back the memory that nothing holds any more."""
        if not self.toy:
            torch.cuda.empty_cache()

    def about(self) -> dict[str, object]:
        """The device and what runs on it, by name."""
        found: dict[str, object] = {"name": platform.machine(), "toy": self.toy}
        if not self.toy:
            card = torch.cuda.get_device_properties(self.device)
            found |= {
                "name": card.name,
                "capability": f"{card.major}.{card.minor}",
                "multiprocessors": card.multi_processor_count,
                "memory_bytes": card.total_memory,
                "driver": _driver(),
                "cuda": torch.version.cuda,
            }
        return found | {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}

    def read_bandwidth(self, size: int) -> dict[str, float]:
        """Bytes a second of reading so many bytes: the best of several rounds of adding them up, of looking
        for the largest, and of a copy, which reads and writes."""
        memory = torch.ones(size // 4, device=self.device)
        other = torch.empty_like(memory)
        works: dict[str, tuple[int, Callable[[], Tensor]]] = {
            "sum": (1, memory.sum),
            "max": (1, memory.amax),
            "copy": (2, lambda: other.copy_(memory)),
        }
        return {
            name: moved * memory.nbytes / self.quickest(work, ROUNDS) for name, (moved, work) in works.items()
        }

    def quickest(self, work: Callable[[], object], rounds: int) -> float:
        """Seconds, of the best of several rounds after one to warm up."""
        taken = []
        for _ in range(1 + rounds):
            began = self.clock()
            work()
            taken.append(self.clock() - began)
        return min(taken[1:])


def _driver() -> str:
    if which(QUERY[0]) is None:
        return ""
    return subprocess.run(QUERY, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
