"""Training a head on recordings of its target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.models.head_config import HeadConfig
from outrider.training.batches import Batch, epoch
from outrider.training.files import write_whole
from outrider.training.loss import soft_cross_entropy
from outrider.training.net import HeadNet
from outrider.training.recorder import Recording
from outrider.training.teacher import Teacher

Where = tuple[Tensor, Tensor]
"""Rows of a batch: (sequences, positions)."""


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    unrolled: how many steps in each pass over the data, growing from one, which costs least and which the
    others build on; rows: positions in a batch; decay: weight of each further step; rate: the highest
    learning rate; warmup: share of all steps.
    """

    unrolled: tuple[int, ...] = (1, 1, 2, 3)
    rows: int = 1700
    decay: float = 0.8
    rate: float = 6e-4
    warmup: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """agreement: of each unrolled step, how often its likeliest token is the target's; length: tokens that a
    greedy verification yields at a draft length of as many tokens, the bonus counted."""

    agreement: tuple[float, ...]
    length: float


class Trainer:
    """A head in training: the same steps in the same order, however often it was saved and restored."""

    def __init__(
        self,
        config: HeadConfig,
        teacher: Teacher,
        draft_tokens: Tensor,
        recordings: Sequence[Recording],
        recipe: Recipe,
        *,
        device: torch.device,
    ) -> None:
        """draft_tokens: int64 [draft vocab], the target's tokens that the head can say, ascending."""
        torch.manual_seed(recipe.seed)
        self.config, self.recipe, self.device = config, recipe, device
        self.draft_tokens = draft_tokens.to(device)
        self.teacher = teacher.to(device)
        self._output = self.teacher.output[self.draft_tokens]
        self._recordings = recordings
        self.net = HeadNet(config)
        self._begin_at_target()
        self.net.to(device)
        self._optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
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
        for number, length in enumerate(self._lengths):
            if self.done < first + length:
                for recordings in self._epoch(number)[self.done - first :]:
                    yield self._step(Batch.of(recordings).to(self.device), self.recipe.unrolled[number])
            first += length

    def evaluate(self, recordings: Sequence[Recording]) -> Score:
        """On sequences that were not trained on."""
        hits = []
        with torch.inference_mode(), self._autocast():
            for part in epoch(recordings, rows=self.recipe.rows, seed=0):
                hits.append(self._hits(Batch.of(part).to(self.device)))
        found = torch.cat(hits, dim=1)
        return Score(tuple(found.mean(1).tolist()), 1 + float(found.cumprod(0).sum(0).mean()))

    def save(self, path: Path) -> None:
        """Everything that training goes on from."""
        state = {"net": self.net.state_dict(), "optimizer": self._optimizer.state_dict(), "done": self.done}
        write_whole(path, lambda partial: torch.save(state, partial))

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]

    def _begin_at_target(self) -> None:
        """Begin as what the target does last: its last layer after the latest of the states that the head
        reads, then its output layer. This saves more than half of the training."""
        with torch.no_grad():
            self.net.lm_head.weight.copy_(self._output)
            self.net.norm.weight.copy_(self.teacher.norm)
            for name, values in self.teacher.last_layer.items():
                # Of what reads [embedding, state] the part that reads the state.
                weight = self.net.midlayer.get_parameter(f"{name}.weight")
                weight[..., weight.shape[-1] - values.shape[-1] :] = values
            hidden = self.config.target_hidden_size
            self.net.fc.weight.zero_()
            self.net.fc.weight[:, -hidden:] = torch.eye(hidden)

    def _epoch(self, number: int) -> list[list[Recording]]:
        return epoch(self._recordings, rows=self.recipe.rows, seed=self.recipe.seed * 1000 + number)

    def _step(self, batch: Batch, unrolled: int) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.rate * self._pace()
        where = self._where(batch, unrolled)
        with self._autocast():
            with torch.no_grad():
                probs = F.linear(self._last(batch, where), self._output).softmax(-1, dtype=torch.float32)
            losses = [soft_cross_entropy(logits, probs) for logits in self._logits(batch, where, unrolled)]
            loss = torch.stack([x * self.recipe.decay**step for step, x in enumerate(losses)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return float(loss.detach())

    def _pace(self) -> float:
        """Share of the highest learning rate: a linear rise, then half a cosine."""
        part = (self.done + 1) / self.total
        if part < self.recipe.warmup:
            return part / self.recipe.warmup
        return 0.5 * (1 + math.cos(math.pi * (part - self.recipe.warmup) / (1 - self.recipe.warmup)))

    def _where(self, batch: Batch, unrolled: int) -> Where:
        """The positions whose distribution is learnt: those before the target's own words."""
        own = batch.own.clone()
        own[:, :unrolled] = False  # no root stands as far before
        sequences, positions = own.nonzero(as_tuple=True)
        return sequences, positions

    def _last(self, batch: Batch, where: Where) -> Tensor:
        """What the target's output layer gets there."""
        return self.teacher.normed(batch.states[where][:, -self.config.target_hidden_size :])

    def _logits(self, batch: Batch, where: Where, steps: int) -> Iterator[Tensor]:
        """The head's logits [rows of `where`, draft vocab], one step after the other."""
        sequences, positions = where
        roots = batch.tokens.shape[1] - 1
        features = batch.states[:, :roots, : 3 * self.config.target_hidden_size]
        following = F.pad(batch.tokens[:, 1:], (0, steps - 1))
        mask = torch.full((roots, roots), -torch.inf, device=self.device).triu(1)
        embedded = F.embedding(following, self.teacher.embedding)
        for step, state in enumerate(self.net.unroll(features, embedded, mask, steps)):
            yield self.net.lm_head(state[sequences, positions - 1 - step])

    def _hits(self, batch: Batch) -> Tensor:
        """Whether each step agrees with the target; float32 [steps, roots that all steps have]."""
        steps = max(self.recipe.unrolled)
        where = self._where(batch, steps)
        best = F.linear(self._last(batch, where), self.teacher.output).argmax(-1)
        agrees = torch.full((steps, *batch.own.shape), -1.0, device=self.device)
        for step, logits in enumerate(self._logits(batch, where, steps)):
            hit = self.draft_tokens[logits.argmax(-1)] == best
            agrees[step, where[0], where[1] - 1 - step] = hit.float()
        agrees = agrees.flatten(1)
        return agrees[:, (agrees >= 0).all(0)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)
