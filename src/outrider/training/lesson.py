"""What a kind of draft learns from a batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from outrider.training.batches import TrainingBatch
from outrider.training.loss import agreement

DEPTH = 4
"""Draft length that acceptance is estimated for."""
JUDGED = 256
"""Rows that are judged at a time: they hold the target's whole vocabulary."""
LIKELIEST = 64
"""Tokens by which agreement is judged: the others have a thousandth of the chances, together."""

Where = tuple[Tensor, Tensor]
"""Rows of a batch: (sequences, positions)."""


class Lesson(Protocol):
    """A draft in training. It is moved to its device when it is made; under autocast it is asked."""

    @property
    def net(self) -> nn.Module: ...

    def matrices(self) -> Sequence[nn.Parameter]:
        """The matrices of the layers; what reads or gives tokens is not among them."""

    def loss(self, batch: TrainingBatch, unrolled: int) -> Tensor:
        """The loss of so many unrolled steps together, a number."""

    def agreement(self, batch: TrainingBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """The chances that each of `DEPTH` tokens drafted in a row is the target's, where those before it
        are: of likeliest tokens, and of tokens drawn at a temperature with the same noise; float32 [DEPTH,
        places where a draft may begin]."""

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


def judged(target: Tensor, draft: Tensor, said: Tensor, temperature: float) -> Tensor:
    """Whether the likeliest tokens of rows agree, and how likely those drawn at a temperature do: float32
    [2, steps, rows].

    target: logits [rows, vocab]; draft: [steps, rows, draft vocab]; said: int64 [draft vocab], what the draft
    can say.
    """
    likeliest = said[draft.argmax(-1)] == target.argmax(-1)
    p = (target.float() / temperature).softmax(-1)[:, said].expand(draft.shape)
    q = (draft.float() / temperature).softmax(-1)
    top = (p + q).topk(min(LIKELIEST, q.shape[-1])).indices
    return torch.stack([likeliest.float(), agreement(p.gather(-1, top), q.gather(-1, top))])
