"""How tokens are chosen from rows of logits, as values that a backend carries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""Different ids of tokens."""


class NoToken(IntEnum):
    """What stands in place of a token where a row has none."""

    NAN = -1
    """It holds NaN."""
    INFINITE = -2
    """It holds +inf."""
    NOTHING = -3
    """It holds nothing but -inf."""


@dataclass(frozen=True)
class Filters:
    """Temperature above 0, then min-p, top-k and top-p, in vLLM's order; 0, 0 and 1 filter nothing."""

    temperature: float
    min_p: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, eq=False)
class Bar:
    """These tokens cannot be chosen."""

    ids: Ids


@dataclass(frozen=True, eq=False)
class Allow:
    """No others can be chosen. mask: bool [vocab]."""

    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Add:
    """values, float32, are added to the logits of these tokens."""

    ids: Ids
    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Penalise:
    """Positive logits of these tokens are divided by `factor`, others multiplied (Keskar et al., 2019)."""

    ids: Ids
    factor: float


Change = Bar | Allow | Add | Penalise
"""An edit of one row of logits."""
Edits = tuple[Change, ...]
"""Those of one row, in their order."""


@dataclass(frozen=True)
class Choice:
    """What is chosen from the logits of a span: of its rows with logits the first `skip` are passed over, and
    the next `rows` give a token each.

    filters: None for the first of the largest logits. Otherwise the token is argmax(filtered log p + Gumbel
    noise) with the noise of (key, position + offsets[i]) at row i; without offsets these are 0, 1, 2 and so
    on. edits: one for each row, or none at all; they change what is chosen from, and not the logits that can
    be looked at afterwards."""

    rows: int
    filters: Filters | None = None
    key: int = 0
    position: int = 0
    edits: Sequence[Edits] = ()
    skip: int = 0
    offsets: Sequence[int] = ()


class Ranked(NamedTuple):
    """A token by its log-probability; rank 1 is the likeliest."""

    token: int
    logprob: float
    rank: int


class Rows(Protocol):
    """The logits of a span, to be looked at before the next step."""

    def ranked(self, row: int, token: int, count: int) -> list[Ranked]:
        """`token`, then the `count` likeliest in order, by the raw logits of a row."""

    def probabilities(self) -> NDArray[np.float64]:
        """[rows of the choice, vocab]: what tokens are chosen from, edited and filtered. A row sums to 1, or
        is NaN where no token can be chosen."""


class Stepped(NamedTuple):
    """What a pass and its choices yield.

    tokens: of each span one a row of its choice, a `NoToken` where there is none. rows: of each span, if they
    were to be looked at. kept: what the definition keeps of all rows, in the backend's own form: it has a
    length, can be cut into slices, and is good until the next step.
    """

    tokens: Sequence[Sequence[int]]
    rows: Sequence[Rows] | None
    kept: Any
