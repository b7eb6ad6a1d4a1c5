"""The command line: one file a command."""

import sys

from outrider.cli.importing import INTERRUPTED, importing


def main() -> None:
    """Entry point. Ctrl-C ends it in one line."""
    with importing():
        from outrider.cli.app import main as run

    try:
        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
