"""What a target's checkpoint brings to draft for it."""

from __future__ import annotations

from collections.abc import Iterator

from outrider.finding.candidate import Candidate, OwnCandidate, Sought
from outrider.models.mtp import has_mtp
from outrider.speculative_config import DrafterConfig


def in_checkpoint(sought: Sought) -> Iterator[Candidate]:
    """The layer for multi-token prediction, where there is one."""
    if has_mtp(sought.checkpoint):
        yield OwnCandidate(DrafterConfig(method="mtp"), "mtp", "in the target's own files", None)
