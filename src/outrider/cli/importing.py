"""Imports that take seconds: Ctrl-C ends them in one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal

CLEARED = "\r\x1b[2K\x1b[?25h"  # what a terminal takes for an empty line and a cursor that is seen


@contextmanager
def importing() -> Iterator[None]:
    """An exception would not do: libraries catch it in their imports, and fail by it in their own ways."""
    usual = signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing is open yet that would have to be closed; a terminal may show progress, without its cursor,
    which would be drawn again below what is written to `sys.stderr` meanwhile."""
    os.write(2, f"{CLEARED if os.isatty(2) else ''}interrupted\n".encode())
    os._exit(INTERRUPTED)
