"""Limits of control groups of both versions, wherever on the way up they are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from outrider.machine.control_groups import cpu_quota, memory_left
from tests.machine.trees import write

V1 = "3:cpuset:/\n4:cpu,cpuacct:/outer/inner\n7:memory:/outer/inner\n1:name=systemd:/other\n"
V2 = "0::/outer/inner\n"
MIXED = "4:memory:/outer/inner\n1:cpu:/outer/inner\n0::/elsewhere\n"
ROOT = "0::/\n"  # a container with a namespace of its own
HOST = "0::/docker/0123456789ab\n"  # a path that the container does not see


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (ROOT, {}, math.inf),
        (ROOT, {"cpu.max": "max 100000\n"}, math.inf),
        (ROOT, {"cpu.max": "150000 100000\n"}, 1.5),
        (ROOT, {"cpu.max": "nonsense"}, math.inf),
        (ROOT, {"cpu.max": "1 0\n"}, math.inf),
        (HOST, {"cpu.max": "150000 100000\n"}, 1.5),
        (None, {"cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"outer/inner/cpu.max": "400000 100000\n", "outer/cpu.max": "max 100000\n"}, 4.0),
        (V2, {"outer/inner/cpu.max": "400000 100000\n", "outer/cpu.max": "20000 10000\n"}, 2.0),
        (V2, {"outer/inner/cpu.max": "100000 100000\n", "outer/cpu.max": "200000 100000\n"}, 1.0),
        (V2, {"outer/inner/cpu.max": "max 100000\n", "other/cpu.max": "100000 100000\n"}, math.inf),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        (None, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ("4:cpu:/docker/0\n", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        (V1, {"cpu/cpu.cfs_quota_us": "400000\n"}, math.inf),
        (
            V1,
            {
                "cpu/outer/inner/cpu.cfs_quota_us": "400000\n",
                "cpu/outer/inner/cpu.cfs_period_us": "100000\n",
                "cpu/outer/cpu.cfs_quota_us": "250000\n",
                "cpu/outer/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (MIXED, {"unified/elsewhere/cpu.max": "300000 100000\n", "unified/cpu.max": "max 100000\n"}, 3.0),
        (
            MIXED,
            {"cpu/outer/inner/cpu.cfs_quota_us": "300000\n", "cpu/outer/inner/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
    ],
)  # fmt: skip
def test_quotas(tmp_path: Path, own: str | None, files: dict[str, str], cores: float) -> None:
    mounted = write(tmp_path / "groups", files)
    told = tmp_path / "cgroup"
    if own is not None:
        told.write_text(own)
    assert cpu_quota(mounted, told) == cores


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        (ROOT, {}, math.inf),
        (ROOT, {"memory.max": "max\n", "memory.current": "1000\n"}, math.inf),
        (ROOT, {"memory.max": "5000\n", "memory.current": "1000\n"}, 4000),
        (ROOT, {"memory.max": "5000\n", "memory.high": "3000\n", "memory.current": "1000\n"}, 2000),
        (ROOT, {"memory.max": "500\n", "memory.current": "1000\n"}, 0),
        (ROOT, {"memory.max": "5000", "memory.current": "1000", "memory.stat": "inactive_file 600\n"}, 4600),
        (
            V2,
            {
                "outer/inner/memory.max": "5000\n",
                "outer/inner/memory.current": "1000\n",
                "outer/memory.max": "6000\n",
                "outer/memory.current": "4500\n",
            },
            1500,  # a neighbour in the outer group takes 3500
        ),
        (None, {"memory/memory.limit_in_bytes": "5000\n", "memory/memory.usage_in_bytes": "500\n"}, 4500),
        (
            V1,
            {
                "memory/outer/inner/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/outer/inner/memory.usage_in_bytes": "500\n",
                "memory/outer/memory.limit_in_bytes": "5000\n",
                "memory/outer/memory.usage_in_bytes": "2000\n",
                "memory/outer/memory.stat": "inactive_file 1\ntotal_inactive_file 900\n",
            },
            3900,
        ),
    ],
)  # fmt: skip
def test_memory_that_is_left(tmp_path: Path, own: str | None, files: dict[str, str], left: float) -> None:
    mounted = write(tmp_path / "groups", files)
    told = tmp_path / "cgroup"
    if own is not None:
        told.write_text(own)
    assert memory_left(mounted, told) == left
