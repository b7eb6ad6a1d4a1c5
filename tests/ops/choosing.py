"""Choosing a token by its definition, in NumPy: noise, edits, filters, and what a draft is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tests.ops.oracle import Array
from tests.ops.programs import BEST, native, program

MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15
MASS_UNIT = 2.0**-34
NAN, INFINITE, NOTHING = -1, -2, -3


def mix(x: Array) -> Array:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014). uint64 [n]."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)))


def gumbel(key: int, position: int, vocab: int) -> Array:
    """The noise of each token at a position, float32 [vocab]."""
    golden = np.array([GOLDEN], np.uint64)
    at = mix(mix(np.array([key], np.uint64) + golden) ^ np.array([position], np.uint64))
    bits = mix(at + np.arange(1, vocab + 1, dtype=np.uint64) * golden) >> np.uint64(12)
    uniforms = ((bits.astype(np.float64) + 0.5) * 2.0**-52).astype(np.float32)
    uniforms = np.minimum(uniforms, np.float32(1 - 2.0**-24))
    return np.asarray(-np.log(-np.log1p(-uniforms)))


@dataclass(frozen=True)
class Filters:
    """Temperature, then min-p, top-k and top-p."""

    temperature: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def native(self) -> Any:
        return native.Filters(self.temperature, self.min_p, self.top_k, self.top_p)

    def scores(self, logits: Array) -> Array:
        """Log-probabilities up to a constant, -inf where filtered; NaN where there is no token. [vocab]."""
        if why_none(logits) is not None:
            return np.full_like(logits, np.nan)
        scores = (logits - logits.max()) / np.float32(self.temperature)
        if self.min_p > 0:
            scores[scores < np.float32(math.log(self.min_p))] = -np.inf
        if 0 < self.top_k < len(scores):
            scores[scores < np.sort(scores)[-self.top_k]] = -np.inf
        if self.top_p < 1:
            order = np.argsort(-scores, kind="stable")
            mass = np.rint(np.exp(scores[order].astype(np.float64)) / MASS_UNIT)
            before = np.cumsum(mass) - mass
            scores[order[before >= self.top_p * mass.sum()]] = -np.inf
        return np.asarray(scores)


def why_none(logits: Array) -> int | None:
    """Why a row has no token."""
    if np.isnan(logits).any():
        return NAN
    if np.isposinf(logits).any():
        return INFINITE
    return NOTHING if np.isneginf(logits).all() else None


def chosen(logits: Array, filters: Filters | None, key: int, position: int) -> int:
    """The token of a row [vocab], or why there is none."""
    reason = why_none(logits)
    if reason is not None:
        return reason
    values = logits if filters is None else filters.scores(logits) + gumbel(key, position, len(logits))
    return int(np.argmax(values))


def scores(logits: Array, filters: Filters | None) -> Array:
    """What a token is chosen from, [vocab]."""
    if filters is not None:
        return filters.scores(logits)
    if why_none(logits) is not None:
        return np.full_like(logits, np.nan)
    certain = np.full_like(logits, -np.inf)
    certain[np.argmax(logits)] = 0
    return certain


@dataclass(frozen=True)
class Edit:
    """A change, and what it does by its definition to a row in place."""

    change: Any
    apply: Callable[[Array], None]


def bar(ids: Sequence[int]) -> Edit:
    def apply(row: Array) -> None:
        row[list(ids)] = -np.inf

    return Edit(native.Change.bar(np.array(ids, np.int64)), apply)


def allow(mask: Array) -> Edit:
    def apply(row: Array) -> None:
        row[mask == 0] = -np.inf

    return Edit(native.Change.allow(mask), apply)


def add(ids: Sequence[int], values: Array) -> Edit:
    def apply(row: Array) -> None:
        np.add.at(row, list(ids), values)

    return Edit(native.Change.add(np.array(ids, np.int64), values), apply)


def penalise(ids: Sequence[int], factor: float) -> Edit:
    def apply(row: Array) -> None:
        values = row[list(ids)]
        row[list(ids)] = np.where(values > 0, values / np.float32(factor), values * np.float32(factor))

    return Edit(native.Change.penalise(np.array(ids, np.int64), factor), apply)


def edited(logits: Array, edits: Sequence[Edit]) -> Array:
    """A copy of a row with edits, one after the other."""
    row = logits.copy()
    for edit in edits:
        edit.apply(row)
    return row


def choice(
    rows: int,
    filters: Filters | None = None,
    key: int = 0,
    position: int = 0,
    edits: Sequence[Sequence[Edit]] = (),
    skip: int = 0,
) -> Any:
    """The native choice."""
    changes = [[edit.change for edit in row] for row in edits]
    return native.Choice(skip, rows, filters and filters.native, key, position, changes)


@cache
def rows_program(vocab: int, instruction_set: str = BEST, threads: int = 1) -> Any:
    """A program whose logits are its input."""
    p = program(instruction_set, threads)
    p.output(p.select_logit_rows(p.input(vocab)))
    return p


def tokens_of(logits: Array, wanted: Any, *, instruction_set: str = BEST, threads: int = 1) -> list[int]:
    """What a native choice makes of logits [rows, vocab]."""
    count, vocab = logits.shape
    p = rows_program(vocab, instruction_set, threads)
    tokens, _ = p.step([0] * count, [0], [count], [[]], [count], [wanted], np.ascontiguousarray(logits))
    return list(tokens[0])


@dataclass
class Price:
    """When a draft ends; see `Price` in native/draft.h."""

    row: float
    token: float
    least: int
    sure: list[float]
    reached: list[float]
    position: int = 0
    survival: float = 1.0

    @property
    def native(self) -> Any:
        return native.Price(self.row, self.token, self.least, self.sure, self.reached)

    def takes(self, confidence: float) -> bool:
        doubt = max(1.0 - confidence, 1e-4)
        odds = math.log2((1.0 - doubt + 1e-4) / doubt)
        survival = self.survival * self.sure[int(min(max(odds / 1.25 + 3, 0), len(self.sure) - 1))]
        if survival < self.row and self.position >= self.least:
            return False
        self.survival, self.position = survival, self.position + 1
        return True

    def goes_on(self) -> bool:
        if not self.reached or self.position < self.least:
            return True
        here = self.reached[min(self.position, len(self.reached) - 1)]
        return self.survival * here >= self.token
