"""Training a draft on recordings of its target.

The last pass trains the draft as it will be stored: each step's gradient is taken at the rounded weights and
changes the exact ones (as in BinaryConnect, Courbariaux et al., 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from outrider.training.batches import TrainingBatch, epoch
from outrider.training.files import write_whole
from outrider.training.lesson import Lesson
from outrider.training.recorder import Recording
from outrider.training.score import Score


@dataclass(frozen=True)
class Recipe:
    """How a draft is trained.

    unrolled: how many steps in each pass over the data, growing from one, which costs least and which the
    others build on; rows: positions in a batch; decay: weight of each further step; rate: the highest
    learning rate; warmup: share of all steps.
    """

    unrolled: tuple[int, ...] = (1, 1, 2, 3)
    rows: int = 1700
    decay: float = 0.8
    rate: float = 8e-4
    warmup: float = 0.03
    seed: int = 0


class Trainer:
    """A draft in training: the same steps in the same order, however often it was saved and restored."""

    def __init__(
        self, lesson: Lesson, recordings: Sequence[Recording], recipe: Recipe, *, device: torch.device
    ) -> None:
        self.lesson, self.recipe, self.device = lesson, recipe, device
        self._recordings = recordings
        self._optimizer = torch.optim.AdamW(
            lesson.net.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self._lengths = [len(self._epoch(number)) for number in range(len(recipe.unrolled))]
        self.done = 0

    @property
    def total(self) -> int:
        """Steps in all."""
        return sum(self._lengths)

    def steps(self) -> Iterator[float]:
        """Train to the end; yields the loss of each step."""
        first = 0
        last = len(self._lengths) - 1
        for number, length in enumerate(self._lengths):
            if self.done < first + length:
                for recordings in self._epoch(number)[self.done - first :]:
                    batch = TrainingBatch.of(recordings).to(self.device)
                    with self.lesson.as_saved() if number == last else nullcontext():
                        loss = self._gradient(batch, self.recipe.unrolled[number])
                    self._step()
                    yield loss
            first += length

    def evaluate(self, recordings: Sequence[Recording]) -> Score:
        """On sequences that were not trained on."""
        hits = []
        with torch.inference_mode(), self.lesson.as_saved(), self._autocast():
            for part in epoch(recordings, rows=self.recipe.rows, seed=0):
                hits.append(self.lesson.hits(TrainingBatch.of(part).to(self.device)))
        found = torch.cat(hits, dim=1)
        return Score(tuple(found.mean(1).tolist()), 1 + float(found.cumprod(0).sum(0).mean()))

    def save(self, path: Path) -> None:
        """Everything that training goes on from. Raises OSError, with nothing lost, if the disk is full."""
        state = {
            "net": self.lesson.net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "done": self.done,
        }
        write_whole(path, lambda partial: torch.save(state, partial))

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.lesson.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]

    def _epoch(self, number: int) -> list[list[Recording]]:
        return epoch(self._recordings, rows=self.recipe.rows, seed=self.recipe.seed * 1000 + number)

    def _gradient(self, batch: TrainingBatch, unrolled: int) -> float:
        """The loss, with its gradient left at the parameters."""
        with self._autocast():
            losses = self.lesson.losses(batch, unrolled)
            loss = torch.stack([x * self.recipe.decay**step for step, x in enumerate(losses)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _step(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.rate * self._pace()
        torch.nn.utils.clip_grad_norm_(self.lesson.net.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1

    def _pace(self) -> float:
        """Share of the highest learning rate: a linear rise, then half a cosine."""
        part = (self.done + 1) / self.total
        if part < self.recipe.warmup:
            return part / self.recipe.warmup
        return 0.5 * (1 + math.cos(math.pi * (part - self.recipe.warmup) / (1 - self.recipe.warmup)))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)
