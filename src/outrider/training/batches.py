"""Recordings in batches for training."""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from outrider.training.recorder import Recording


@dataclass(frozen=True)
class TrainingBatch:
    """Padded sequences. tokens: int64 [batch, length]; states: bfloat16 [batch, length, width].

    Positions, bool [batch, length]: real, which are no padding, and own, those of them whose prediction is
    of the target's answer.
    """

    tokens: Tensor
    states: Tensor
    real: Tensor
    own: Tensor

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> TrainingBatch:
        count, length = len(recordings), max(len(r.tokens) for r in recordings)
        tokens = torch.zeros((count, length), dtype=torch.int64)
        states = torch.zeros((count, length, recordings[0].states.shape[1]), dtype=torch.bfloat16)
        real, own = torch.zeros((2, count, length), dtype=torch.bool)
        for i, r in enumerate(recordings):
            tokens[i, : len(r.tokens)] = torch.tensor(r.tokens)
            states[i, : len(r.tokens)] = r.states
            real[i, : len(r.tokens)] = True
            own[i, r.own - 1 : len(r.tokens)] = True
        return cls(tokens, states, real, own)

    def to(self, device: torch.device) -> TrainingBatch:
        return TrainingBatch(*(part.to(device) for part in (self.tokens, self.states, self.real, self.own)))


class Text(Protocol):
    """What has tokens."""

    @property
    def tokens(self) -> Sized: ...


T = TypeVar("T", bound=Text)


def epoch(texts: Sequence[T], *, rows: int, seed: int) -> list[list[T]]:
    """All texts once, in random batches of similar lengths and of `rows` positions at most."""
    draw = random.Random(seed)
    order = sorted(texts, key=lambda text: len(text.tokens) * draw.uniform(0.9, 1.1))
    batches: list[list[T]] = [[]]
    longest = 0  # of the last batch
    for text in order:
        length = len(text.tokens)
        longest = max(longest, length)
        if batches[-1] and longest * (len(batches[-1]) + 1) > rows:
            batches.append([])
            longest = length
        batches[-1].append(text)
    draw.shuffle(batches)
    return batches
