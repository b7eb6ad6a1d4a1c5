"""Truncation of a distribution: top-k, top-p and min-p."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Filters:
    """Temperature above 0, then min-p, top-k and top-p, in vLLM's order; 0, 0 and 1 filter nothing."""

    temperature: float
    min_p: float
    top_k: int
    top_p: float

    def scores(self, logits: Tensor) -> Tensor:
        """Log-probabilities up to a constant, -inf where filtered. [rows, vocab]."""
        # Relative to the largest, so that a tiny temperature makes nothing infinite.
        scores = (logits - logits.max(dim=-1, keepdim=True).values) / self.temperature
        if self.min_p > 0:
            scores = keep_min_p(scores, self.min_p)
        if self.top_k > 0:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        return scores


def keep_min_p(scores: Tensor, min_p: float) -> Tensor:
    """Drop tokens less likely than `min_p` times the likeliest (Nguyen et al., 2024). [rows, vocab]."""
    floor = scores.max(dim=-1, keepdim=True).values + torch.tensor(min_p).log()
    return scores.masked_fill(scores < floor, -torch.inf)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Keep the `k` likeliest tokens, and those that tie with the last of them. [rows, vocab]."""
    if k >= scores.shape[-1]:
        return scores
    floor = scores.topk(k, dim=-1).values[:, -1:]
    return scores.masked_fill(scores < floor, -torch.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens with mass of at least `p` (Holtzman et al., 2020).

    [rows, vocab]. Equally likely tokens are kept in order of their ids.
    """
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    mass = ordered.softmax(dim=-1)
    before = mass.cumsum(dim=-1) - mass  # mass of all likelier tokens
    dropped = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, before >= p)
    dropped.scatter_(-1, order[:, :1], False)
    return scores.masked_fill(dropped, -torch.inf)
