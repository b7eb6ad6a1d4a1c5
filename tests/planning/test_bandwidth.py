from __future__ import annotations

import re
from pathlib import Path

import pytest

from outrider.planning import bandwidth
from outrider.planning.bandwidth import read_bandwidth, resident

MAPS = Path("/proc/self/smaps_rollup")
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_bytes() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", MAPS.read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(
    not (MAPS.exists() and SWITCH.exists()) or "[never]" in SWITCH.read_text(),
    reason="this system has no huge pages",
)
def test_memory_lies_in_huge_pages_as_weights_do() -> None:
    before, size = huge_bytes(), 2**26
    memory = resident(size)
    assert memory.nbytes == size
    assert huge_bytes() - before > 0.9 * size


def test_it_is_the_quickest_of_all_rounds_over_all_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LEAST", 2**20)
    monkeypatch.setattr(bandwidth, "EACH", 2**18)
    monkeypatch.setattr(bandwidth, "ROUNDS", 3)
    for threads, size in ((1, 2**20), (3, 2**20), (8, 2**21)):
        times = iter((0.0, 4.0, 10.0, 12.0, 20.0, 23.0))  # rounds of 4, 2 and 3 seconds
        assert read_bandwidth(threads, times.__next__) == bandwidth.PASSES * size / 2
