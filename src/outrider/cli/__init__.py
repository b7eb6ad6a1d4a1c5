"""The command line: one file a command."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Entry point. Ctrl-C ends it in one line, also in the seconds that its imports take."""
    # An exception would not do there: libraries catch it in their imports, and fail by it in their own ways.
    usual = signal.signal(signal.SIGINT, _end_at_once)
    from outrider.cli.app import main as run

    signal.signal(signal.SIGINT, usual)
    try:
        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Nothing is open yet that would have to be closed."""
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
