"""How long a fuzzer runs, and where it begins: `make fuzz` sets both."""

from __future__ import annotations

import pytest


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """How long each fuzzer runs."""
    return float(request.config.getoption("--fuzz-seconds"))


@pytest.fixture
def fuzz_seed(request: pytest.FixtureRequest) -> int:
    """The number of the first case; the others follow it."""
    return int(request.config.getoption("--fuzz-seed"))
