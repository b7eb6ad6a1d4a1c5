"""A lock for threads that take it again and again."""

from __future__ import annotations

from threading import Lock
from types import TracebackType


class FairLock:
    """A lock whose next holder is one who waits for it, and not who has just released it.

    Of Python's own locks a thread that takes one in a loop is mostly the next holder again, and the others
    wait until it is done.
    """

    def __init__(self) -> None:
        self._next = Lock()  # held by the one who waits for the other
        self._held = Lock()

    def take_if_free(self) -> bool:
        """Take it, if nobody has it; `release` then gives it back."""
        return self._held.acquire(blocking=False)

    def release(self) -> None:
        self._held.release()

    def __enter__(self) -> None:
        with self._next:
            self._held.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.release()
