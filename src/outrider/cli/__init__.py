"""The command line: one file a command."""

from outrider.cli.app import main

__all__ = ["main"]
