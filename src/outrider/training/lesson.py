"""What a kind of draft learns from a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from outrider.training.batches import Batch

DEPTH = 4
"""Draft length that acceptance is estimated for."""

Where = tuple[Tensor, Tensor]
"""Rows of a batch: (sequences, positions)."""


class Lesson(Protocol):
    """A draft in training. It is moved to its device when it is made; under autocast it is asked."""

    @property
    def net(self) -> nn.Module: ...

    def losses(self, batch: Batch, unrolled: int) -> list[Tensor]:
        """The loss of each unrolled step."""

    def hits(self, batch: Batch) -> Tensor:
        """Whether each of `DEPTH` tokens drafted in a row, likeliest ones, is the target's likeliest; float32
        [DEPTH, places where a draft may begin]."""

    def save(self, folder: Path, *, quantized: bool) -> None:
        """Write the draft as it can be loaded."""


def own_positions(batch: Batch, first: int) -> Where:
    """The positions whose distribution is learnt: those before the target's own words, from `first` on."""
    own = batch.own.clone()
    own[:, :first] = False
    sequences, positions = own.nonzero(as_tuple=True)
    return sequences, positions
