"""How far a draft's distributions are from the target's, and how often the two agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Distance(torch.autograd.Function):
    """Cross-entropy against whole distributions, without keeping what its gradient does not need: that is
    softmax(logits) - probs. See `distance`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, probs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits.float()
        total = scores.logsumexp(-1, keepdim=True)
        loss = (weight * (total[:, 0] - (probs * scores).sum(-1))).sum()
        said = (scores - total).exp_()
        overlap = torch.minimum(probs, said).sum(-1)
        ctx.save_for_backward(said.sub_(probs).mul_(weight[:, None]).to(logits.dtype))
        ctx.mark_non_differentiable(overlap)
        return loss, overlap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad.to(slope.dtype), None, None


def distance(logits: Tensor, probs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over rows of weight * cross-entropy, and the overlap of each row, sum(min(p, q)).

    logits, of the draft, and probs, the target's: [rows, vocab]; weight: [rows].
    """
    loss, overlap = Distance.apply(logits, probs, weight)  # type: ignore[no-untyped-call]
    return loss, overlap


def agreement(p: Tensor, q: Tensor) -> Tensor:
    """How likely it is that target and draft choose the same token with the same noise: [rows].

    p, of the target, and q, of the draft: probabilities of the same tokens [rows, tokens]; with those that a
    row leaves out, so that it sums to less than 1, the two are taken never to agree. Both take the first of
    exponential clocks to ring, whose rates are p or q. So both take token i with the chance
    1 / sum_j max(p_j / p_i, q_j / q_i), as in weighted MinHash (Daliri et al., 2024, use it for speculative
    decoding). Sorted by q / p, the first of the two is the larger up to i, the second beyond, and two running
    sums are all that is needed.
    """
    order = (q / p).nan_to_num_(0.0).argsort(-1)
    p, q = p.double().gather(-1, order), q.double().gather(-1, order)
    below, beyond = p.cumsum(-1) + 1 - p.sum(-1, keepdim=True), (1 - q.cumsum(-1)).clamp_(min=0)
    return (p * q / (below * q + beyond * p)).nan_to_num_(0.0).sum(-1).float()
