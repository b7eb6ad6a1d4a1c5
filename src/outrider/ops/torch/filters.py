"""Truncation of a distribution: temperature, min-p, top-k and top-p. Native code follows the same rules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from outrider.ops.choice import Filters

MASS_UNIT = 2.0**-34  # of the likeliest token's mass: sums of whole units are exact in any order


def filtered(logits: Tensor, filters: Filters) -> Tensor:
    """Log-probabilities up to a constant, -inf where filtered. [rows, vocab].

    A row from which no token can be chosen, for NaN, +inf, or nothing but -inf, holds NaN.
    """
    # Relative to the largest, so that a tiny temperature makes nothing infinite.
    scores = (logits - logits.max(dim=-1, keepdim=True).values) / filters.temperature
    if filters.min_p > 0:
        scores = keep_min_p(scores, filters.min_p)
    if filters.top_k > 0:
        scores = keep_top_k(scores, filters.top_k)
    if filters.top_p < 1:
        scores = keep_top_p(scores, filters.top_p)
    return scores


def keep_min_p(scores: Tensor, min_p: float) -> Tensor:
    """Drop tokens less likely than `min_p` times the likeliest (Nguyen et al., 2024). [rows, vocab]."""
    floor = scores.max(dim=-1, keepdim=True).values + math.log(min_p)
    return scores.masked_fill(scores < floor, -torch.inf)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Keep the `k` likeliest tokens, and those that tie with the last of them. [rows, vocab]."""
    if k >= scores.shape[-1]:
        return scores
    floor = scores.topk(k, dim=-1).values[:, -1:]
    return scores.masked_fill(scores < floor, -torch.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens with mass of at least `p` (Holtzman et al., 2020).

    [rows, vocab]. Equally likely tokens are kept in order of their ids. Mass is counted in MASS_UNIT.
    """
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    mass = (ordered - ordered[:, :1]).double().exp().div_(MASS_UNIT).round_()
    reached = mass.cumsum(dim=-1)
    before = reached - mass  # mass of all likelier tokens
    dropped = torch.zeros_like(scores, dtype=torch.bool)
    dropped.scatter_(-1, order, before >= p * reached[:, -1:])
    return scores.masked_fill(dropped, -torch.inf)
