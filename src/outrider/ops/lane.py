"""Drafts that a model or a head grows in lockstep, token by token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.ops.budget import Budget
from outrider.ops.choice import Choice, Ids
from outrider.ops.span import Span


@dataclass(frozen=True)
class Words:
    """Which tokens a drafter can say. ids: the target's, ascending, of each column of its logits; None:
    column i is token i, and what lies beyond the target's `vocab` is padding that is never drafted."""

    vocab: int
    ids: Ids | None = None


@dataclass(frozen=True)
class Lane:
    """A draft to grow behind the last row of a span, whose tables have room for all of it.

    choice: of one row, with the noise of the first token; the others have that of the positions after. A
    draft that is edited has one token and no sibling, since what follows depends on it. stops: nothing is
    drafted after these. chances, probabilities: whether they are wanted."""

    span: Span
    choice: Choice
    budget: Budget
    stops: Collection[int]
    chances: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class Grown:
    """A draft. seconds: of each token the next best one, -1 where it is not worth its price; confidences: of
    each token where there is a price, see `Budget`; chances: the drafter's own
    probability of each token, before sampling parameters; probabilities: what each was drawn from, float64
    [tokens, vocab]; both where they were wanted. state: of a draft with edits what was kept of the
    row, [1, width], from which another one goes on."""

    tokens: tuple[int, ...]
    seconds: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()
    probabilities: NDArray[np.float64] | None = None
    state: Any = None


class DraftChain(Protocol):
    """Two passes as one call: the first over what a drafter has not read, and one that goes on from a drafted
    token, again and again."""

    def __call__(self, lanes: Sequence[Lane | Span], input: Any = None) -> list[Grown]:
        """The drafts of the lanes, in their order. A span alone is only read. input: of the first pass."""
