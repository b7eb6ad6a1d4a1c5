"""Energy as the machine counts it: RAPL's and NVML's counters, read through Zeus, or nothing at all.

There is no estimate here. Tools that multiply a processor's rated power by seconds give a figure on any
machine, but one that says nothing which the seconds did not say; where no counter can be read, the answer
is that, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from outrider.extras import ENERGY


class EnergyMeter(Protocol):
    """A counter of joules."""

    @property
    def source(self) -> str | None:
        """What it reads; None: nothing."""

    @property
    def reason(self) -> str | None:
        """Why it reads nothing; None: it does."""

    def joules(self) -> float | None:
        """Energy since some moment in the past, of which only differences mean anything. None: unknown."""


@dataclass(frozen=True)
class Counter:
    """A counter of the machine, which counts whatever runs there, not one process."""

    source: str
    millijoules: Callable[[], float]
    reason: None = None

    def joules(self) -> float:
        return self.millijoules() / 1e3


@dataclass(frozen=True)
class NoMeter:
    """For a machine whose energy cannot be measured."""

    reason: str
    source: None = None

    def joules(self) -> None:
        return None


def find_meter(device: str) -> EnergyMeter:
    """What counts the energy of work on this device, 'cpu' or 'cuda:0': on a GPU its own counter, else the
    CPU's packages."""
    if ENERGY.missing is not None:
        return NoMeter(ENERGY.lack("reading RAPL or NVML", ENERGY.missing))
    kind, _, number = device.partition(":")
    return _of_gpu(int(number) if number else None) if kind == "cuda" else _of_cpu()


def used(before: float | None, after: float | None) -> float | None:
    """Joules between two readings. None where a counter stood still: some virtual machines have such."""
    if before is None or after is None or after <= before:
        return None
    return after - before


def _of_cpu() -> EnergyMeter:
    from zeus.device.cpu import get_cpus
    from zeus.device.cpu.rapl import rapl_is_available
    from zeus.exception import ZeusBaseError

    if not rapl_is_available():
        return NoMeter("the system shows no RAPL counters, as in most virtual machines")
    try:
        # Some laptops show the whole platform as one more zone, which holds the packages: not counted twice.
        cpus = [cpu for cpu in get_cpus().cpus if "psys" not in _zone(cpu)]
        for cpu in cpus:
            # Zeus starts a process that watches for overflows at the first reading: better now than in a run.
            cpu.get_total_energy_consumption()
    except (ZeusBaseError, OSError) as error:
        return NoMeter(f"RAPL cannot be read: {error}")
    if not cpus:
        return NoMeter("RAPL shows no CPU package")

    def millijoules() -> float:
        read = [cpu.get_total_energy_consumption() for cpu in cpus]
        return float(sum(each.cpu_mj + (each.dram_mj or 0.0) for each in read))

    memory = all(cpu.supports_get_dram_energy_consumption() for cpu in cpus)
    what = "CPU packages and memory" if memory else "CPU packages, without memory"
    return Counter(f"RAPL: {what}, whatever runs on the machine", millijoules)


def _zone(cpu: Any) -> str:
    """The name of a RAPL zone: 'package-0', 'psys'. Empty where Zeus's daemon reads it."""
    file = getattr(cpu, "rapl_file", None)
    return "" if file is None else str(file.name)


def _of_gpu(number: int | None) -> EnergyMeter:
    """number: None for the GPU that PyTorch computes on."""
    from zeus.device import get_gpus
    from zeus.device.gpu.nvidia import nvml_is_available
    from zeus.exception import ZeusBaseError

    if not nvml_is_available():
        return NoMeter("there is no NVML, or no GPU that it knows")
    index = _current_gpu() if number is None else number
    try:
        gpus = get_gpus()
        if not gpus.supports_get_total_energy_consumption(index):
            return NoMeter(f"{gpus.get_name(index)} does not count its energy")
        gpus.get_total_energy_consumption(index)
    except (ZeusBaseError, IndexError) as error:
        return NoMeter(f"NVML cannot be read: {error}")
    return Counter(
        f"NVML: GPU {index}, whatever runs on it", lambda: gpus.get_total_energy_consumption(index)
    )


def _current_gpu() -> int:
    import torch

    return torch.cuda.current_device()
