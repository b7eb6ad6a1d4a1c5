"""How many threads compute where nobody says it, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil

from outrider.machine.control_groups import cpu_quota

TOPOLOGY = Path("/sys/devices/system/cpu")
SIBLINGS = ("core_cpus_list", "thread_siblings_list")  # the second is what Linux before 5.3 has


@dataclass(frozen=True)
class Cores:
    """What the process may use. processors: by its affinity; physical: the cores that those are threads of;
    quota: processors' worth of time that its control groups grant."""

    processors: int
    physical: int
    quota: float

    @cached_property
    def threads(self) -> int:
        """One a core: two hardware threads of a core share what a kernel waits for, its caches and its way to
        memory. None beyond the quota: all would be stopped in the middle of a step when it is used up."""
        return max(1, min(self.physical, int(min(self.quota, self.processors))))

    @property
    def reason(self) -> str:
        if self.quota < self.physical:
            return f"a control group grants {self.quota:.3g} of {self.physical} cores"
        if self.physical < self.processors:
            return f"one a core; this process may use {self.processors} hardware threads of them"
        return "one for each core that this process may use"


def usable_cores(topology: Path = TOPOLOGY) -> Cores:
    """The cores of this process, by its affinity, the machine's topology and its control groups."""
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    else:
        allowed = list(range(os.cpu_count() or 1))
    known = psutil.cpu_count(logical=False) or len(allowed)
    cores = [_core(topology / f"cpu{processor}" / "topology") for processor in allowed]
    physical = min(known, len(allowed)) if None in cores else len(set(cores))
    return Cores(len(allowed), physical, cpu_quota())


def default_threads() -> int:
    """Threads of the native kernels where nobody says how many."""
    return usable_cores().threads


def threads_reason(wanted: int | None) -> str:
    """Why there are so many threads. wanted: what the user said, if anything."""
    cores = usable_cores()
    if wanted is None:
        return cores.reason
    if wanted > cores.threads:
        return f"as given; {cores.threads} would be the default: {cores.reason}"
    return "as given"


def _core(topology: Path) -> str | None:
    """The processors of a core, which tell it from others; None where the system does not say."""
    for name in SIBLINGS:
        try:
            return (topology / name).read_text().strip()
        except OSError:
            continue
    return None
