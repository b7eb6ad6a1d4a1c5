"""The head that comes with this package."""

from __future__ import annotations

from collections.abc import Iterator

from outrider.errors import ModelError
from outrider.finding.candidate import Candidate, HeadCandidate, Sought, weights_size
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head
from outrider.speculative_config import DrafterConfig

NAME = "head"
MEASURED = "acceptance length 2.61 greedy, 2.25 at temperature 0.7, 4 drafted, on Spec-Bench"
"""As docs/training-log.md has it."""


def in_package(sought: Sought) -> Iterator[Candidate]:
    """SmolLM2's head, where the target is SmolLM2; others do not hear of it."""
    path = locate_head(NAME)
    try:
        HeadCheckpoint(path).layers(sought.checkpoint.config, sought.config.model)
    except ModelError:
        return
    yield HeadCandidate(
        DrafterConfig(method="head", model=NAME), NAME, "in this package", weights_size(path), MEASURED
    )
