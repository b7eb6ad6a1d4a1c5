"""Faults in what changes no answer, such as drafting: no request ends for them."""

from __future__ import annotations

import logging
import sys
from types import TracebackType


class Faults:
    """Tells the log of faults that harm nobody: what fails in every step is told once for each type of error.

    log: of the module where they are caught.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[tuple[str, str]] = set()

    def tell(self, what: str) -> None:
        """Log the exception that is being handled, with its traceback. what: a sentence about it."""
        told = (what, type(sys.exception()).__name__)
        level = logging.DEBUG if told in self._told else logging.ERROR
        self._told.add(told)
        self._log.log(level, "%s; this is logged once", what, exc_info=True)

    def tolerated(self, what: str) -> _Tolerated:
        """Leave the block at a fault, and go on after it."""
        return _Tolerated(self, what)


class _Tolerated:
    def __init__(self, faults: Faults, what: str) -> None:
        self._faults, self._what = faults, what

    def __enter__(self) -> None:
        """Nothing is done before a fault."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self._faults.tell(self._what)
        return True
