"""Rounds of training on what was said last; runs in the training process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from outrider.adapting.messages import GoBack, Passage, TrainingRound
from outrider.adapting.settings import ROWS, AdaptConfig
from outrider.training.head_lesson import HeadLesson
from outrider.training.recorder import Recording
from outrider.training.score import Score
from outrider.training.trainer import Recipe, Trainer

UNROLLED = 3
HELD, MOST_HELD = 8, 4096
"""The latest traffic, that versions are compared on: one part in so many of what is kept, and so many tokens
at most. A later round learns from it too."""


class Rounds:
    """A head that goes on learning from what comes.

    What is kept is bounded in bytes, and the oldest makes room. Each round goes over all of it but the
    latest, on which the head is then compared with the one that drafts.
    """

    def __init__(self, lesson: HeadLesson, config: AdaptConfig) -> None:
        self._lesson = lesson
        self._config = config
        self._kept: deque[Recording] = deque()
        self._fresh = 0  # tokens that came since the last round
        self.nbytes = 0
        """Bytes of what is kept."""
        self._versions = 0
        self._drafting = self._values()  # what the server drafts with
        self._before: dict[str, Tensor] | None = None

    def add(self, passage: Passage) -> None:
        """Keep it, at the expense of the oldest."""
        states = torch.from_numpy(passage.states.copy()).view(torch.bfloat16)
        self._kept.append(Recording(tuple(passage.tokens.tolist()), passage.own, states))
        self._fresh += len(passage.tokens)
        self.nbytes += states.nbytes
        while self.nbytes > self._config.kept and len(self._kept) > 1:
            self.nbytes -= self._kept.popleft().states.nbytes

    @property
    def due(self) -> bool:
        """Whether there is enough that is new."""
        return self._fresh >= self._config.every and len(self._kept) > 1

    def go_back(self, message: GoBack) -> None:
        """To the version before, unless another one has taken over since."""
        if self._before is not None and message.version == self._versions:
            self._drafting, self._before = self._before, None
            self._lesson.net.load_state_dict(self._drafting)

    def train(self, between: Callable[[], None] = lambda: None) -> TrainingRound:
        """One round. between: is called between two steps of it; what is then added is for the next one."""
        began, learnt = time.process_time(), self._fresh
        self._fresh = 0
        older, latest = self._divided()
        config = self._config
        recipe = Recipe(
            unrolled=(UNROLLED,) * config.passes, rows=ROWS, rate=config.learning_rate, seed=self._versions
        )
        trainer = Trainer(self._lesson, older, recipe, device=torch.device("cpu"))
        exact = self._values()
        self._lesson.net.load_state_dict(self._drafting)
        before = _length(trainer.evaluate(latest))
        self._lesson.net.load_state_dict(exact)
        drafting = self._drafting
        for _ in trainer.steps():
            between()
        after = _length(trainer.evaluate(latest))
        tensors = None
        if drafting is not self._drafting:  # a version was taken back meanwhile, and this one came of it
            self._lesson.net.load_state_dict(self._drafting)
        elif after >= before * (1 + config.margin):
            self._versions += 1
            self._before, self._drafting = self._drafting, self._values()
            tensors = self._lesson.tensors()
        elif not after >= before:
            self._lesson.net.load_state_dict(self._drafting)
        # Else it goes on from here: the margin may be reached in several rounds.
        return TrainingRound(before, after, learnt, time.process_time() - began, self._versions, tensors)

    def _divided(self) -> tuple[list[Recording], list[Recording]]:
        """What is learnt from, and the latest."""
        kept = list(self._kept)
        most = min(MOST_HELD, sum(len(recording.tokens) for recording in kept) // HELD)
        latest = [kept.pop()]
        while len(kept) > 1 and sum(len(r.tokens) for r in latest) + len(kept[-1].tokens) <= most:
            latest.append(kept.pop())
        return kept, latest

    def _values(self) -> dict[str, Tensor]:
        return {name: values.clone() for name, values in self._lesson.net.state_dict().items()}


def _length(score: Score) -> float:
    """The acceptance length over greedy and sampled drafts, as many of each."""
    return (score.greedy.length + score.sampled.length) / 2
