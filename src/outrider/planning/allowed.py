"""Limits of memory, as they were given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from outrider.config import EngineConfig
from outrider.engine.backend import choose_device
from outrider.errors import ConfigError
from outrider.planning.process import DRIVER

MIB = 2**20


def mib(size: int) -> str:
    """Bytes, rounded up to MiB."""
    return f"{-(-size // MIB)} MiB"


def in_words(parts: Mapping[str, int]) -> str:
    """Bytes of each part, but for those that take none."""
    return ", ".join(f"{name} {mib(size)}" for name, size in parts.items() if size)


@dataclass(frozen=True)
class Limit:
    """bytes: that a process may take; name: of the option that says so."""

    bytes: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} = {self.bytes} bytes ({self.bytes / MIB:.0f} MiB)"

    def raised(self, least: int) -> str:
        """What to do where so many bytes are needed at least."""
        return f"raise {self.name} to {mib(least)}"


@dataclass(frozen=True)
class Share(Limit):
    """A share of the `total` bytes of a GPU, or of another device."""

    total: int
    device: str = "GPU"

    def __str__(self) -> str:
        share = self.bytes / self.total
        return (
            f"{self.name} = {share:.3g} of the {self.device}'s {mib(self.total)} ({self.bytes / MIB:.0f} MiB)"
        )

    def raised(self, least: int) -> str:
        share = ceil(100 * least / self.total) / 100
        if share > 1:
            return f"take a {self.device} of more than {mib(self.total)}, since {mib(least)} are needed"
        return f"raise {self.name} to {share:.2f}"


@dataclass(frozen=True)
class Free(Limit):
    """What nobody else has of a GPU's memory."""

    def __str__(self) -> str:
        return f"{self.name} ({self.bytes / MIB:.0f} MiB)"

    def raised(self, least: int) -> str:
        return f"free memory there, of which {mib(least)} are needed,"


class Memory(NamedTuple):
    """Bytes of a GPU. free: what a process may have there that has none of it yet."""

    total: int
    free: int


def gpu_memory(name: str) -> Memory:
    """Of the GPU that a configuration's `device` means. Raises ConfigError where it is not here."""
    device = choose_device(name)
    from outrider.ops.cuda.device import memory  # it imports PyTorch

    total, free = memory(device)
    return Memory(total, min(total, free + DRIVER))  # the driver has taken its part by now


def limit_of(config: EngineConfig, there: Memory) -> Limit:
    """What a configuration may take of a GPU: `memory_limit`, its share, or what is free. Raises ConfigError
    for two of these at once."""
    share = config.gpu_memory_utilization
    if config.memory_limit is None:
        if share is None:
            return Free(there.free, "the free memory of the GPU")
        return Share(int(share * there.total), "gpu_memory_utilization", there.total)
    if share is not None:
        raise ConfigError(
            f"memory_limit = {config.memory_limit} and gpu_memory_utilization = {share} both say what may be "
            "taken of the GPU; drop one"
        )
    return Limit(config.memory_limit, "memory_limit")
