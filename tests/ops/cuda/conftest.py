"""Triton's interpreter, quickened, with tapes in place of graphs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.cuda import ON_GPU
from tests.ops.cuda.interpreting import quickened
from tests.ops.cuda.tape import record_on_tapes


@pytest.fixture(scope="session", autouse=True)
def _interpreter() -> Iterator[None]:
    if ON_GPU:
        yield
        return
    with quickened() as patch:
        record_on_tapes(patch)
        yield
