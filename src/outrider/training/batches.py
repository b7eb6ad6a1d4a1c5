"""Recordings in batches for training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.training.recorder import Recording


@dataclass(frozen=True)
class Batch:
    """Padded sequences. tokens: int64 [batch, length]; states: bfloat16 [batch, length, width]; own: bool
    [batch, length], the positions whose prediction is of the target's own words."""

    tokens: Tensor
    states: Tensor
    own: Tensor

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> Batch:
        count, length = len(recordings), max(len(r.tokens) for r in recordings)
        tokens = torch.zeros((count, length), dtype=torch.int64)
        states = torch.zeros((count, length, recordings[0].states.shape[1]), dtype=torch.bfloat16)
        own = torch.zeros((count, length), dtype=torch.bool)
        for i, r in enumerate(recordings):
            tokens[i, : len(r.tokens)] = torch.tensor(r.tokens)
            states[i, : len(r.tokens)] = r.states
            own[i, r.own - 1 : len(r.tokens)] = True
        return cls(tokens, states, own)

    def to(self, device: torch.device) -> Batch:
        return Batch(self.tokens.to(device), self.states.to(device), self.own.to(device))


def epoch(recordings: Sequence[Recording], *, rows: int, seed: int) -> list[list[Recording]]:
    """All recordings once, in random batches of similar lengths and of `rows` positions at most."""
    draw = random.Random(seed)
    order = sorted(recordings, key=lambda r: len(r.tokens) * draw.uniform(0.9, 1.1))
    batches: list[list[Recording]] = [[]]
    for recording in order:
        longest = max(len(r.tokens) for r in [*batches[-1], recording])
        if batches[-1] and longest * (len(batches[-1]) + 1) > rows:
            batches.append([])
        batches[-1].append(recording)
    draw.shuffle(batches)
    return batches
