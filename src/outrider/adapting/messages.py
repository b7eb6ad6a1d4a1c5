"""What the server and its training process tell each other, over a pipe of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.adapting.settings import AdaptConfig


@dataclass(frozen=True)
class Setup:
    """What is to be trained. target, revision: of the model, as the server opened it; head: a folder;
    threads: to train with."""

    target: str
    revision: str | None
    head: Path
    threads: int
    config: AdaptConfig


@dataclass(frozen=True)
class Ready:
    """The head can be trained, and passages are waited for."""


@dataclass(frozen=True)
class Refusal:
    """Why the head cannot be trained; nothing follows."""

    reason: str


@dataclass(frozen=True, eq=False)
class Passage:
    """A piece of a sequence. tokens: int32 [n]; own: where the target's own words begin, 1 at least; states:
    the bits of bfloat16, uint16 [n, layers * hidden]."""

    tokens: NDArray[np.int32]
    own: int
    states: NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.states.nbytes


@dataclass(frozen=True)
class TrainingRound:
    """A round of training. before, after: the acceptance length of the version that drafts and of the new
    one, on the latest traffic; tokens: that it learnt from and had not seen before; seconds: of processor
    time; version, tensors: of the new head where it is the better one, by its public names; else None."""

    before: float
    after: float
    tokens: int
    seconds: float
    version: int
    tensors: Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True)
class GoBack:
    """This version turned out to be worse than the one before it, which drafts again."""

    version: int
