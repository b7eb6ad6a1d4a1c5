"""How a head learns while it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from outrider.option_types import Bytes
from outrider.validation import Strict

ROWS = 1024  # positions of a batch


class AdaptConfig(Strict):
    """Options of `outrider serve --adapt`."""

    memory: Bytes = 2**28
    """Bytes of the traffic that is kept to learn from, in both processes together."""
    cores: NonNegativeInt = 0
    """Cores to train on all the time; 0: on all of them, while the server is idle."""
    save: Path | None = None
    """A folder for the head that drafts last; None: what is learnt ends with the server."""
    idle: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds without anything to compute after which the server counts as idle."""
    every: PositiveInt = 8192
    """Tokens of new traffic after which a round of training is worth its time."""
    passes: PositiveInt = 1
    """Times that a round goes over what is kept."""
    learning_rate: PositiveFloat = 1.2e-3
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share by which the acceptance length has to grow for a new version to take over."""

    @property
    def waiting(self) -> int:
        """Bytes of `memory` for traffic that waits to be handed to the training process."""
        return max(1, self.memory // 8)

    @property
    def kept(self) -> int:
        """Bytes of `memory` that the training process keeps."""
        return max(1, self.memory - self.waiting)
