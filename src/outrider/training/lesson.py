"""What a kind of draft learns from a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from outrider.training.batches import TrainingBatch

DEPTH = 4
"""Draft length that acceptance is estimated for."""

Where = tuple[Tensor, Tensor]
"""Rows of a batch: (sequences, positions)."""


class Lesson(Protocol):
    """A draft in training. It is moved to its device when it is made; under autocast it is asked."""

    @property
    def net(self) -> nn.Module: ...

    def losses(self, batch: TrainingBatch, unrolled: int) -> list[Tensor]:
        """The loss of each unrolled step."""

    def hits(self, batch: TrainingBatch) -> Tensor:
        """Whether each of `DEPTH` tokens drafted in a row, likeliest ones, is the target's likeliest; float32
        [DEPTH, places where a draft may begin]."""

    def as_saved(self) -> AbstractContextManager[None]:
        """Meanwhile the net has the values that `save` writes; gradients are of those, and stay."""

    def save(self, folder: Path) -> None:
        """Write the draft as it can be loaded."""


def positions(marked: Tensor, first: int) -> Where:
    """Those that are marked, bool [batch, length], from `first` on."""
    marked = marked.clone()
    marked[:, :first] = False
    sequences, found = marked.nonzero(as_tuple=True)
    return sequences, found


@contextmanager
def rounded(net: nn.Module, rounding: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Meanwhile every parameter has the value that `rounding` gives it."""
    exact = {parameter: parameter.data for parameter in net.parameters()}
    try:
        for parameter, values in exact.items():
            parameter.data = rounding(values)
        yield
    finally:
        for parameter, values in exact.items():
            parameter.data = values
