"""Native kernels read nothing beyond the arrays that they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs mprotect and fork, which Windows does not have"
)


@pytest.fixture(scope="module")
def endings() -> dict[str, int]:
    """How each check of `guarded` ended."""
    # AddressSanitizer would turn the signal into an exit code.
    options = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "handle_segv=0")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.guarded"],
        env=os.environ | {"ASAN_OPTIONS": options},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {name: int(code) for name, code in (line.rsplit(": ", 1) for line in done.stdout.splitlines())}


def test_nothing_is_read_beyond_arrays(endings: dict[str, int]) -> None:
    ended = {name: code for name, code in endings.items() if not name.startswith("fault")}
    assert len(ended) >= 10
    assert {name: code for name, code in ended.items() if code != 0} == {}


def test_reading_one_element_beyond_would_be_noticed(endings: dict[str, int]) -> None:
    planted = {name: code for name, code in endings.items() if name.startswith("fault")}
    assert len(planted) == 5
    assert set(planted.values()) <= {-signal.SIGSEGV, -signal.SIGBUS}, planted
