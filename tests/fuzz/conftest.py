"""How long a fuzzer runs, and where it begins: `make fuzz` sets both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Protocol

import pytest


class Cases(Protocol):
    """Numbers of cases: `least` of them, and more until its share of the time is over."""

    def __call__(self, least: int, *, share: float = 1.0) -> Iterator[int]: ...


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """How long each fuzzer runs."""
    return float(request.config.getoption("--fuzz-seconds"))


@pytest.fixture
def fuzz_seed(request: pytest.FixtureRequest) -> int:
    """The number of the first case; the others follow it."""
    return int(request.config.getoption("--fuzz-seed"))


@pytest.fixture
def fuzz_cases(fuzz_seconds: float, fuzz_seed: int) -> Cases:
    def cases(least: int, *, share: float = 1.0) -> Iterator[int]:
        deadline = time.monotonic() + share * fuzz_seconds
        for number in count():
            if number >= least and time.monotonic() > deadline:
                return
            yield fuzz_seed + number

    return cases
