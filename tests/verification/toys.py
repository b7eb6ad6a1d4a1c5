"""Language models of five tokens: a target, and drafters that try to spoil what is written."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

Tokens = tuple[int, ...]
Scores = NDArray[np.float32]
Shares = NDArray[np.float64]

VOCAB = 5
DEAD = VOCAB - 1
"""The target never writes it."""


class Toy:
    """A model whose next-token distribution depends on every token before it."""

    def __init__(self, scores: Callable[[Tokens], Scores]) -> None:
        self.scores = lru_cache(maxsize=None)(scores)
        """The tokens so far -> log-probabilities up to a constant, float32 [vocab]."""
        self.rows = lru_cache(maxsize=None)(self._rows)
        self._weights = lru_cache(maxsize=None)(lambda prefix: self.probabilities(prefix).tolist())

    def probabilities(self, prefix: Tokens) -> Shares:
        return softmax(self.scores(prefix))

    def joint(self, length: int) -> dict[Tokens, float]:
        """The exact probability of every text of `length` tokens."""
        texts: dict[Tokens, float] = {(): 1.0}
        for _ in range(length):
            texts = {
                (*text, token): mass * probability
                for text, mass in texts.items()
                for token, probability in enumerate(self._weights(text))
            }
        return texts

    def continued(self, text: Tokens, length: int, generator: random.Random) -> Tokens:
        """The first `length` tokens of `text`, completed by plain sampling where it is shorter."""
        while len(text) < length:
            text = (*text, *generator.choices(range(VOCAB), self._weights(text)))
        return text[:length]

    def _rows(self, draft: Tokens, count: int) -> Shares:
        """Probabilities [count, vocab] after `draft[:0]`, `draft[:1]`, and so on."""
        return np.stack([self.probabilities(draft[:i]) for i in range(count)])


def softmax(scores: Scores) -> Shares:
    shares = np.exp(scores.astype(np.float64) - scores.max())
    return np.asarray(shares / shares.sum())


def _random_scores(seed: int, prefix: Tokens) -> Scores:
    number = int("".join(map(str, (seed, *prefix))))
    return np.asarray(torch.randn(VOCAB, generator=torch.Generator().manual_seed(number)) * 1.5)


def _without(scores: Scores, *tokens: int) -> Scores:
    return np.where(np.isin(np.arange(VOCAB), tokens), np.float32(-np.inf), scores)


def _only(token: int) -> Scores:
    return np.where(np.arange(VOCAB) == token, np.float32(0), np.float32(-np.inf))


def _likeliest(prefix: Tokens) -> int:
    return int(TARGET.scores(prefix).argmax())


def _torn(prefix: Tokens) -> Scores:
    p = TARGET.probabilities(prefix)
    q = 0.02 * p
    q[_likeliest(prefix)] *= 30
    q[DEAD] = 1 - q.sum()
    return np.log(q).astype(np.float32)


TARGET = Toy(lambda prefix: _without(_random_scores(1, prefix), DEAD))

DRAFTERS = {
    "right": TARGET,
    "wrong": Toy(lambda prefix: _only(DEAD)),
    "unlike": Toy(lambda prefix: _random_scores(2, prefix)),
    "gaps": Toy(lambda prefix: _without(_random_scores(3, prefix), sum(prefix) % 3, sum(prefix) % 3 + 1)),
    "eager": Toy(lambda prefix: (_random_scores(1, prefix) / 2 - np.arange(VOCAB)).astype(np.float32)),
    "torn": Toy(_torn),
    "sure": Toy(lambda prefix: np.fmax(_only(_likeliest(prefix)), np.full(VOCAB, -5, np.float32))),
    "guess": Toy(lambda prefix: _only(sum(prefix) % DEAD)),
}
"""wrong: always refused; unlike: has mass everywhere; gaps: zeros where the target has mass; eager: overrates
the first tokens; torn: between what never stands and what always does; sure: nearly a guess; guess: all mass
on one token, another one after every prefix."""
