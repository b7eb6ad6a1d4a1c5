"""A head that learns from conversations, with the target's states computed on the fly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from examples.smollm2_head.target import Target
from examples.smollm2_head.writer import Conversation
from outrider.training.batches import epoch
from outrider.training.lesson import DEPTH, rounded
from outrider.training.net import HeadNet
from outrider.training.score import Score

OF_PROMPTS = 0.15  # weight of a position that is not of the target's own words
REACH = 0.9  # of a step's weight, the part that goes by the chance that a draft gets there
ROUNDED_FROM = 0.6  # part of the time after which the head is trained as it will be stored
STEPS = ((0.0, 2), (0.2, 3), (0.45, 4))  # unrolled, from which part of the time on


@dataclass(frozen=True)
class Lesson:
    """What a head is taught. draft_tokens: int64 [draft vocab], what it can say; state_layers: the target's
    layers whose inputs it reads; rows: of a batch."""

    target: Target
    draft_tokens: Tensor
    state_layers: tuple[int, ...]
    rows: int

    def loss(self, net: HeadNet, conversations: Sequence[Conversation], steps: int) -> Tensor:
        """Cross-entropy against the target's distribution in every unrolled step."""
        tokens, weight, _ = self._tensors(conversations)
        length = tokens.shape[1]
        with self._autocast():
            features, last = self._read(tokens)
            with torch.no_grad():
                probs = F.linear(last, self.target.output[self.draft_tokens]).softmax(-1, torch.float32)
            reach = torch.ones_like(weight)
            total = weight.new_zeros(())
            for step, logits in enumerate(self._unrolled(net, tokens, features, steps)):
                count = logits.shape[1] - step  # of roots whose token is in the sequence
                wanted, chance = slice(1 + step, length), (1 - REACH) + REACH * reach[:, :count]
                loss, overlap = distance(
                    logits[:, :count].flatten(0, 1),
                    probs[:, wanted].flatten(0, 1),
                    (weight[:, wanted] * chance).flatten(),
                )
                total = total + loss
                reach = reach[:, :count] * overlap.view(len(tokens), count)
        return total / weight.sum()

    @torch.no_grad()
    def score(self, net: HeadNet, conversations: Sequence[Conversation]) -> Score:
        """The score of drafts of `DEPTH` likeliest tokens, by a head as it is stored in 4 bits."""
        found = []
        with rounded(net, as_stored), self._autocast():
            for batch in epoch(conversations, rows=self.rows, seed=1):
                tokens, _, own = self._tensors(batch)
                features, last = self._read(tokens)
                best = torch.stack([F.linear(one, self.target.output).argmax(-1) for one in last])
                agrees = torch.zeros((DEPTH, *tokens[:, 1:].shape), device=tokens.device)
                for step, logits in enumerate(self._unrolled(net, tokens, features, DEPTH)):
                    count = logits.shape[1] - step
                    said = self.draft_tokens[logits[:, :count].argmax(-1)]
                    agrees[step, :, :count] = (said == best[:, 1 + step :]).float()
                whole = own[:, 1:].clone()
                whole[:, -DEPTH:] = False
                found.append(agrees[:, whole])
        hits = torch.cat(found, 1)
        return Score(tuple(hits.mean(1).tolist()), 1 + float(hits.cumprod(0).sum(0).mean()))

    def _read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads [n, length, width], and what the target's output layer reads."""
        with torch.no_grad():
            kept, last = self.target.whole(tokens, keep=self.state_layers)
            return torch.cat(kept, -1), self.target.normed(last, self.target.norm)

    def _unrolled(self, net: HeadNet, tokens: Tensor, features: Tensor, steps: int) -> Iterator[Tensor]:
        roots = tokens.shape[1] - 1
        embedded = F.embedding(F.pad(tokens[:, 1:], (0, steps - 1)), self.target.table)
        mask = torch.full((roots, roots), -torch.inf, device=tokens.device, dtype=embedded.dtype).triu(1)
        for state in net.unroll(features[:, :roots], embedded, mask, steps):
            yield net.lm_head(state)

    def _tensors(self, conversations: Sequence[Conversation]) -> tuple[Tensor, Tensor, Tensor]:
        """Padded tokens, the weights of their predictions, and which are of the target's own words."""
        count, length = len(conversations), max(len(one.tokens) for one in conversations)
        tokens, weight = np.zeros((count, length), np.int64), np.zeros((count, length), np.float32)
        own = np.zeros((count, length), np.bool_)
        for row, one in enumerate(conversations):
            tokens[row, : len(one.tokens)] = one.tokens
            weight[row, : len(one.tokens)] = OF_PROMPTS
            weight[row, one.own - 1 : len(one.tokens)] = 1
            own[row, one.own - 1 : len(one.tokens) - 1] = True
        device = self.draft_tokens.device
        return tuple(torch.from_numpy(part).to(device) for part in (tokens, weight, own))  # type: ignore[return-value]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.target.table.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.draft_tokens.device.type, self.target.table.dtype)


def train(
    net: HeadNet,
    lesson: Lesson,
    conversations: Sequence[Conversation],
    *,
    seconds: float,
    rate: float,
    seed: int,
    told: Callable[[float, int, float], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Until the time is up: the learning rate falls with time. told: (part of the time, tokens, loss).

    Muon (Jordan et al., 2024) for the matrices of layers, AdamW for the rest.
    """
    layers = [
        p for name, p in net.named_parameters() if p.dim() == 2 and name.startswith(("midlayer", "layers"))
    ]
    others = [p for p in net.parameters() if not any(p is one for one in layers)]
    optimizers = (
        torch.optim.Muon(layers, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    )
    began, tokens = clock(), 0
    for number in range(2**31):
        for batch in epoch(conversations, rows=lesson.rows, seed=seed + number):
            part = (clock() - began) / seconds
            if part >= 1:
                return
            steps = [steps for first, steps in STEPS if part >= first][-1]
            with rounded(net, as_stored) if part > ROUNDED_FROM else nullcontext():
                loss = lesson.loss(net, batch, steps)
                loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            pace = min(1.0, part / 0.03 + 0.02) * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * pace
                optimizer.step()  # type: ignore[no-untyped-call]
                optimizer.zero_grad(set_to_none=True)
            tokens += sum(len(one.tokens) for one in batch)
            told(part, tokens, float(loss.detach()))


def as_stored(values: Tensor) -> Tensor:
    """A matrix rounded to 4 bits on its own device, which `head_checkpoint.quantized` then stores unchanged.

    The scale of 32 values makes -8 of the largest; to look for a better one, as when a file is converted,
    takes too long for each step of training.
    """
    if values.dim() != 2:
        return values.half().float()
    groups = values.view(-1, 32)
    largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    scale = (largest / -8).half().float()
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    return ((groups * inverse).round().clamp(-8, 7) * scale).view_as(values)


class Distance(torch.autograd.Function):
    """See `distance`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, probs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits.float()
        total = scores.logsumexp(-1, keepdim=True)
        loss = (weight * (total[:, 0] - (probs * scores).sum(-1))).sum()
        said = (scores - total).exp_()
        overlap = torch.minimum(probs, said).sum(-1)
        ctx.save_for_backward((said.sub_(probs) * weight[:, None]).to(logits.dtype))
        ctx.mark_non_differentiable(overlap)
        return loss, overlap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad.to(slope.dtype), None, None


def distance(logits: Tensor, probs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of weight * cross-entropy over rows [rows, vocab], and each row's chance that draft and target
    agree, sum(min(p, q))."""
    loss, overlap = Distance.apply(logits, probs, weight)  # type: ignore[no-untyped-call]
    return loss, overlap
