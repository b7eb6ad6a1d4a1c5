"""Batches of conversations, with the target's states computed on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from examples.smollm2_head.target import Target
from examples.smollm2_head.writer import Conversation
from outrider.training.batches import TrainingBatch


@dataclass(frozen=True)
class OnTheFly:
    """state_layers: the target's layers whose inputs the head reads, ascending."""

    target: Target
    state_layers: tuple[int, ...]

    def batch(self, conversations: Sequence[Conversation]) -> TrainingBatch:
        """On the target's device: a conversation's states take a thousand times the bytes of its tokens, so
        that they are computed anew each time rather than kept."""
        count, length = len(conversations), max(len(one.tokens) for one in conversations)
        padded = np.zeros((count, length), np.int64)
        real, own = np.zeros((2, count, length), np.bool_)
        for row, one in enumerate(conversations):
            padded[row, : len(one.tokens)] = one.tokens
            real[row, : len(one.tokens)] = True
            own[row, one.own - 1 : len(one.tokens)] = True
        device = self.target.table.device
        tokens = torch.from_numpy(padded).to(device)
        with torch.no_grad():
            kept, last = self.target.whole(tokens, keep=self.state_layers)
        states = torch.cat([*kept, last], -1).bfloat16()
        return TrainingBatch(tokens, states, *(torch.from_numpy(each).to(device) for each in (real, own)))
