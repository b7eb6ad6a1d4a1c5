"""What Linux's control groups, which containers are made of, leave to this process.

A group lies in others, and each of them may have a limit, so that the least on the way up holds. A container
sees its own group where groups are mounted, and mostly not those above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")

CPU = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""Files of version 2 and of version 1 that say together how much time is granted in how much."""
MEMORY = (
    (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
)
"""The files of both versions: limits, what is used, and the name in `memory.stat` of pages of files that
nobody has used for a while."""


def cpu_quota(mounted: Path = MOUNTED, own: Path = OWN) -> float:
    """Processors' worth of time that this process is granted; infinite where nothing limits it."""
    found = math.inf
    for folder in _folders("cpu", mounted, own):
        for files in CPU:
            try:
                granted, period = " ".join((folder / name).read_text() for name in files).split()
                if granted not in ("max", "-1"):
                    found = min(found, int(granted) / int(period))
            except (OSError, ValueError, ZeroDivisionError):  # no such files, or not of this form
                continue
    return found


def memory_left(mounted: Path = MOUNTED, own: Path = OWN) -> float:
    """Bytes that this process could have beside its own; infinite where nothing limits it, never below 0.

    Pages of files that were read once count as used, but are given up for others: they are free.
    """
    found = math.inf
    for folder in _folders("memory", mounted, own):
        for limits, used, unneeded in MEMORY:
            most = min(_number(folder / name) for name in limits)
            if most < math.inf:
                taken = _number(folder / used, 0) - _stat(folder / "memory.stat", unneeded)
                found = min(found, max(0, most - max(0, taken)))
    return found


def _folders(controller: str, mounted: Path, own: Path) -> Iterator[Path]:
    """This process's groups and those that they lie in, of version 2 and of this controller of version 1."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no such file: what is mounted is all that is known
        lines = ["0::/", f"1:{controller}:/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = [mounted, mounted / "unified"]  # as it is where both versions are there
        elif controller in controllers.split(","):
            mounts = [mounted / controller]
        else:
            continue
        group = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / inner for inner in (group, *group.parents))


def _number(file: Path, otherwise: float = math.inf) -> float:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or 'max'
        return otherwise


def _stat(file: Path, name: str) -> int:
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0
