"""Growing drafts in lockstep, in plain Python: what native code is tested against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.budget import Meter
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span
from outrider.ops.torch.choose import TorchWords, confidence, probabilities

Run = Callable[[Sequence[Span], Any], tuple[Tensor, Any]]
"""A pass: (spans, input) -> logits, and what it keeps."""


@dataclass(eq=False)
class _Growing:
    lane: Lane
    end: int
    in_place: bool
    tokens: list[int] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    probabilities: list[NDArray[np.float64]] = field(default_factory=list)
    state: Tensor | None = None

    def __post_init__(self) -> None:
        self.meter = Meter(self.lane.budget)

    def add(self, logits: Tensor, state: Tensor | None, words: TorchWords) -> bool:
        """A token from a row [1, columns]; False where the draft ends, with or without one more. state: what
        was kept of the row, [1, width]."""
        lane, priced = self.lane, self.lane.budget.price is not None
        sure = confidence(logits) if priced else 1.0
        wanted = self.meter.forks(sure) and sum(each >= 0 for each in self.seconds) < lane.budget.siblings
        if not self.meter.takes(sure):
            return False
        choice = replace(lane.choice, position=lane.choice.position + len(self.tokens))
        token = words.choose(logits, choice)
        if token < 0:
            return False
        if lane.chances:
            self.chances.append(float(words.spread(logits)[0].softmax(-1)[token]))
        if lane.probabilities:
            self.probabilities.append(probabilities(words.spread(logits), choice)[0])
        self.seconds.append(words.second(logits, choice, token) if wanted else -1)
        self.tokens.append(token)
        self.state = state
        if priced:
            self.confidences.append(sure)
        return token not in lane.stops and self.meter.goes_on()

    @property
    def next(self) -> Span:
        """The row of the last token."""
        self.end += not self.in_place
        return replace(self.lane.span, tokens=self.tokens[-1:], start=self.end - 1, logit_rows=1)

    @property
    def grown(self) -> Grown:
        drawn = np.stack(self.probabilities) if self.probabilities else None
        return Grown(
            tuple(self.tokens),
            tuple(self.seconds),
            tuple(self.confidences),
            tuple(self.chances),
            drawn,
            self.state,
        )


class TorchChain:
    """See `outrider.ops.lane.DraftChain`."""

    def __init__(self, first: Run, then: Run, words: Words, *, in_place: bool = False) -> None:
        self._first, self._then, self._words, self._in_place = first, then, words, in_place

    def __call__(self, lanes: Sequence[Lane | Span], input: Any = None) -> list[Grown]:
        spans = [lane.span if isinstance(lane, Lane) else lane for lane in lanes]
        growing = [_Growing(lane, lane.span.end, self._in_place) for lane in lanes if isinstance(lane, Lane)]
        logits, kept = self._first(spans, input)
        active = growing
        while active:
            words = TorchWords.of(self._words, logits.shape[1], logits.device)
            rows = logits[:, : words.columns, None].transpose(1, 2)
            states = [None] * len(active) if kept is None else kept[:, None]
            goes_on = [g.add(row, state, words) for g, row, state in zip(active, rows, states, strict=True)]
            active = [g for g, more in zip(active, goes_on, strict=True) if more]
            if active:
                given = None if kept is None else kept[torch.tensor(goes_on, device=kept.device)]
                logits, kept = self._then([g.next for g in active], given)
        return [g.grown for g in growing]
