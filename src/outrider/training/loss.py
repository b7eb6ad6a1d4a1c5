"""Cross-entropy against whole distributions, without keeping what its gradient does not need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SoftCrossEntropy(torch.autograd.Function):
    """Mean over rows of -sum(probs * log_softmax(logits)); its gradient is softmax(logits) - probs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, probs: Tensor) -> Tensor:
        """logits, probs: [rows, vocab]; probs sum to at most 1 a row."""
        scores = logits.float()
        total = scores.logsumexp(-1, keepdim=True)
        mass = probs.sum(-1, keepdim=True, dtype=torch.float32)
        loss = (mass * total).sum() - torch.dot(probs.flatten().float(), scores.flatten())
        scores.sub_(total).exp_().mul_(mass).sub_(probs)
        ctx.save_for_backward(scores.div_(len(logits)).to(logits.dtype))
        return loss / len(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None


def soft_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """See `SoftCrossEntropy`."""
    loss: Tensor = SoftCrossEntropy.apply(logits, probs)  # type: ignore[no-untyped-call]
    return loss
