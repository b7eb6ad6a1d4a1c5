from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

from outrider.planning import bandwidth
from outrider.planning.bandwidth import read_bandwidth, read_bandwidths, resident

MAPS = Path("/proc/self/smaps")
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .*?^VmFlags:([^\n]*)$", re.MULTILINE | re.DOTALL)


def advised(begin: int, end: int) -> int:
    """Bytes from begin to end for which huge pages were asked. The kernel chooses which of them to grant."""
    asked = 0
    for first, last, flags in MAPPING.findall(MAPS.read_text()):
        if "hg" in flags.split():
            asked += max(0, min(end, int(last, 16)) - max(begin, int(first, 16)))
    return asked


@pytest.mark.skipif(
    not (MAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()),
    reason="this system has no huge pages",
)
def test_memory_asks_for_huge_pages_as_weights_do() -> None:
    size = 2**26
    memory = resident(size)
    assert memory.nbytes == size
    begin = memory.ctypes.data
    assert advised(begin, begin + size) >= size - mmap.PAGESIZE  # the first page holds the allocator's words


def test_it_is_the_quickest_of_all_rounds_over_all_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LEAST", 2**20)
    monkeypatch.setattr(bandwidth, "EACH", 2**18)
    monkeypatch.setattr(bandwidth, "ROUNDS", 3)
    monkeypatch.setattr(bandwidth, "ROUND", 2**20)
    for threads, size in ((1, 2**20), (3, 2**20), (8, 2**21)):
        times = iter((0.0, 4.0, 10.0, 12.0, 20.0, 23.0))  # rounds of 4, 2 and 3 seconds
        assert read_bandwidth(threads, times.__next__) == bandwidth.PASSES * size / 2


def test_small_weights_are_read_as_often_as_a_round_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "ROUNDS", 1)
    monkeypatch.setattr(bandwidth, "ROUND", 2**22)
    times = iter((0.0, 2.0))
    assert read_bandwidth(1, times.__next__, size=2**19) == 8 * 2**19 / 2


def test_fewer_bytes_are_read_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little as a busy moment may have measured, and once where no cache holds them."""
    monkeypatch.setattr(bandwidth, "LEAST", 300)
    monkeypatch.setattr(bandwidth, "EACH", 1)
    measured = {300: 5.0, 200: 9.0, 100: 7.0}
    asked: list[int] = []

    def measure(*, size: int) -> float:
        asked.append(size)
        return measured[size]

    monkeypatch.setattr(bandwidth, "read_bandwidth", measure)
    assert read_bandwidths([100, 900, 200, 400]) == {900: 5.0, 400: 5.0, 200: 9.0, 100: 9.0}
    assert sorted(asked) == [100, 200, 300]
