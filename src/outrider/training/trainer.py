"""Training a draft on texts of its target.

Toward the end the draft is trained as it will be stored: each step's gradient is taken at the rounded weights
and changes the exact ones (as in BinaryConnect, Courbariaux et al., 2015).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from outrider.training.batches import Text, TrainingBatch, epoch
from outrider.training.files import write_whole
from outrider.training.lesson import Lesson
from outrider.training.score import SAMPLED, Score

ROUNDED_FROM = 0.6  # part of the training after which weights are rounded as they will be stored
LEAST = 0.02  # share of the highest learning rate, at the end and in the first step


@dataclass(frozen=True)
class Recipe:
    """How a draft is trained.

    unrolled: how many steps from one part of the training to the next, parts of the same size, growing from
    few, which cost least and which the others build on; rows: positions in a batch; rate: the highest
    learning rate; warmup: part of the training in which it rises. seconds: how long to train, over the texts
    again and again; None: as many passes over them as `unrolled` has numbers.
    """

    unrolled: tuple[int, ...] = (2, 3, 4)
    rows: int = 1700
    rate: float = 3e-3
    warmup: float = 0.03
    seed: int = 0
    seconds: float | None = None


class Trainer:
    """A draft in training: the same steps in the same order, however often it was saved and restored.

    Muon (Jordan et al., 2024) trains the matrices of its layers, AdamW the rest. batch: makes a batch of some
    of the texts; clock: seconds, for a recipe that is limited by them.
    """

    def __init__(
        self,
        lesson: Lesson,
        texts: Sequence[Text],
        recipe: Recipe,
        *,
        device: torch.device,
        batch: Callable[[Sequence[Any]], TrainingBatch] = TrainingBatch.of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lesson, self.recipe, self.device = lesson, recipe, device
        self._texts, self._batch, self._clock = texts, batch, clock
        layers = lesson.matrices()
        within = {id(parameter) for parameter in layers}
        others = [parameter for parameter in lesson.net.parameters() if id(parameter) not in within]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(layers, lr=recipe.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
        )
        self._steps = sum(len(self._epoch(number)) for number in range(len(recipe.unrolled)))
        self.done, self._spent = 0, 0.0

    @property
    def total(self) -> int:
        """Steps in all, as far as they are known: seconds allow for as many as they do."""
        if self.recipe.seconds is None:
            return self._steps
        return max(self.done, round(self.done / self.part)) if self.done else self._steps

    @property
    def part(self) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.recipe.seconds is None:
            return self.done / self._steps
        return min(1.0, self._spent / self.recipe.seconds)

    def steps(self) -> Iterator[float]:
        """Train to the end; yields the loss of each step."""
        first = 0
        for number in count():
            batches = self._epoch(number)
            for texts in batches[max(0, self.done - first) :]:
                if self.part >= 1:
                    return
                began = self._clock()
                loss = self._gradient(self._batch(texts).to(self.device))
                self._step()
                self._spent += self._clock() - began
                yield loss
            if self.part >= 1:
                return
            first += len(batches)

    def evaluate(self, texts: Sequence[Text]) -> Score:
        """On texts that were not trained on."""
        parts = epoch(texts, rows=self.recipe.rows, seed=0)
        with torch.inference_mode(), self.lesson.as_saved(), self._autocast():
            found = [self.lesson.agreement(self._batch(part).to(self.device), SAMPLED) for part in parts]
        return Score.of(*(torch.cat(of_all, 1) for of_all in zip(*found, strict=True)))

    def save(self, path: Path) -> None:
        """Everything that training goes on from. Raises OSError, with nothing lost, if the disk is full."""
        state = {
            "net": self.lesson.net.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "done": self.done,
            "spent": self._spent,
        }
        write_whole(path, lambda partial: torch.save(state, partial))

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.lesson.net.load_state_dict(state["net"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done, self._spent = state["done"], state["spent"]

    def _epoch(self, number: int) -> list[list[Text]]:
        return epoch(self._texts, rows=self.recipe.rows, seed=self.recipe.seed * 1000 + number)

    def _gradient(self, batch: TrainingBatch) -> float:
        """The loss, with its gradient left at the parameters."""
        unrolled = self.recipe.unrolled
        steps = unrolled[min(int(self.part * len(unrolled)), len(unrolled) - 1)]
        with self.lesson.as_saved() if self.part >= ROUNDED_FROM else nullcontext():
            with self._autocast():
                loss = self.lesson.loss(batch, steps)
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _step(self) -> None:
        rate = self.recipe.rate * self._pace()
        torch.nn.utils.clip_grad_norm_(self.lesson.net.parameters(), 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1

    def _pace(self) -> float:
        """Share of the highest learning rate: a linear rise, and half a cosine."""
        part, warmup = self.part, self.recipe.warmup
        rise = min(1.0, part / warmup + LEAST) if warmup else 1.0
        return rise * (LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * part)))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)
