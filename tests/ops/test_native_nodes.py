"""Memory of several NUMA nodes: which there are, and pages from each in turn."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outrider.ops.cpu.backend import _untouched
from tests.machine.trees import write
from tests.ops.native import native

MAPS = Path("/proc/self/numa_maps")
PAGE = mmap.PAGESIZE
Bytes = NDArray[np.uint8]
linux = pytest.mark.skipif(not MAPS.exists(), reason="this system has no NUMA nodes")
TWO = {"has_memory": "0-1\n", "node0/cpulist": "0-3,8-11\n", "node1/cpulist": "4-7,12-15\n"}
FAR = {"has_memory": "0,2\n", "node0/cpulist": "0-3\n", "node1/cpulist": "4-7\n", "node2/cpulist": "\n"}


@pytest.mark.parametrize(
    ("files", "processors", "nodes"),
    [
        (TWO, range(16), [0, 1]),
        (TWO, [3, 12], [0, 1]),
        (TWO, [4, 5], [1]),
        (TWO, [9], [0]),
        (TWO, [16], []),
        (FAR, range(8), [0]),  # a node of processors without memory, and one of memory alone
        ({"has_memory": "0\n", "node0/cpulist": "0-1\n"}, [0, 1], [0]),
        ({"has_memory": "nonsense\n", "node0/cpulist": "0-1\n"}, [0, 1], []),
        ({}, [0, 1], []),
    ],
)
def test_nodes(tmp_path: Path, files: dict[str, str], processors: Sequence[int], nodes: list[int]) -> None:
    assert native.nodes_of(str(write(tmp_path, files)), list(processors)) == nodes


def policy(array: NDArray[Any]) -> str:
    """Of the memory that an array begins in."""
    address = array.ctypes.data
    areas = [line.split(maxsplit=2)[:2] for line in MAPS.read_text().splitlines()]
    return max((int(first, 16), policy) for first, policy in areas if int(first, 16) <= address)[1]


@pytest.fixture
def pages() -> Bytes:
    """Sixteen that nobody has touched."""
    return np.frombuffer(mmap.mmap(-1, 16 * PAGE, flags=mmap.MAP_PRIVATE), np.uint8)


@linux
def test_pages_come_from_nodes_in_turn(pages: Bytes) -> None:
    if not native.interleave(pages[4 * PAGE : 8 * PAGE], native.nodes()):
        pytest.skip("the system refuses it, as containers may")
    assert [policy(pages[page * PAGE :])[:10] for page in (3, 4, 7, 8)] == [
        "default",
        "interleave",
        "interleave",
        "default",
    ]
    assert not native.interleave(pages, [1023])  # there is no such node


@linux
def test_a_page_of_which_a_part_is_meant_belongs_to_others_too(pages: Bytes) -> None:
    native.interleave(pages[PAGE // 2 : PAGE + PAGE // 2], native.nodes())
    assert policy(pages) == policy(pages[PAGE:]) == "default"


@linux
def test_the_cache_lies_on_all_nodes() -> None:
    values = _untouched((64, PAGE), np.float32)
    several = len(native.nodes()) > 1
    assert policy(values).startswith("interleave" if several else "default")
