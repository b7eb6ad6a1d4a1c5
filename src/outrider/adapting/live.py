"""Whether a new head drafts as well as the one before it, in requests and not only in what was kept."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

DRAFTS = 512
"""Drafts of a version that are compared."""
ERRORS = 4.0
"""Standard errors by which fewer drafts have to stand for a version to count as worse."""


class Trust(Enum):
    """What is known of a version."""

    OPEN = "open"
    BETTER = "as good as the one before"
    WORSE = "worse"


class LiveCheck:
    """Compares how many drafts began with the right token, before a version took over and after that.

    What the draft's length is does not matter for that. Other traffic may look like a worse head, which then
    costs a version; it can be learnt again.
    """

    def __init__(self, drafts: int = DRAFTS) -> None:
        self._drafts = drafts
        self._recent: deque[bool] = deque(maxlen=drafts)
        self._before: float | None = None

    def exchanged(self) -> None:
        """Another version drafts from now on."""
        enough = len(self._recent) == self._drafts
        self._before = sum(self._recent) / self._drafts if enough else None
        self._recent.clear()

    def add(self, stood: bool) -> Trust:
        """A draft's first token stood or not. Whether the version is trusted is said once: before enough is
        known, and ever after, it is open."""
        self._recent.append(stood)
        before = self._before
        if before is None or len(self._recent) < self._drafts:
            return Trust.OPEN
        self._before = None
        after = sum(self._recent) / self._drafts
        shared = (before + after) / 2
        error = math.sqrt(2 * shared * (1 - shared) / self._drafts)
        return Trust.WORSE if after < before - ERRORS * error else Trust.BETTER
