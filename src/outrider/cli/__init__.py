"""The command line: one file a command."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Entry point. Ctrl-C ends it in one line, also in the seconds that its imports take."""
    # An exception would not do there: libraries catch it in their imports, and fail by it in their own ways.
    usual = signal.signal(signal.SIGINT, _end_at_once)
    with _told("loading libraries ..."):
        from outrider.cli.app import main as run

    signal.signal(signal.SIGINT, usual)
    try:
        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """A line on a terminal that is gone afterwards. Without a library: it would take its time to import,
    too."""
    seen = sys.stderr.isatty()
    if seen:
        sys.stderr.write(what)
        sys.stderr.flush()
    yield
    if seen:
        sys.stderr.write("\r" + " " * len(what) + "\r")
        sys.stderr.flush()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing is open yet that would have to be closed."""
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
