"""The command line: one file a command."""

import sys

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Entry point. Ctrl-C ends it in one line, also in the seconds that its imports take."""
    try:
        from outrider.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
