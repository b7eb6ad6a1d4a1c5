"""Growing drafts in lockstep, in one native call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Floats
from outrider.ops.budget import Budget
from outrider.ops.cpu import extension
from outrider.ops.cpu.forward import NativeForward, arguments, native_choice, softmax
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span


class NativeChain:
    """See `outrider.ops.lane.DraftChain`."""

    def __init__(
        self, first: NativeForward, then: NativeForward, words: Words, *, in_place: bool = False
    ) -> None:
        self._first, self._then, self._words, self._in_place = first, then, words, in_place

    def __call__(self, lanes: Sequence[Lane | Span], input: Floats | None = None) -> list[Grown]:
        spans = [lane.span if isinstance(lane, Lane) else lane for lane in lanes]
        before, after = self._first.slots(spans)
        grown = extension.require().draft(
            self._first.program,
            self._then.program,
            *arguments(spans),
            [self._native(lane) if isinstance(lane, Lane) else None for lane in lanes],
            self._words.ids,
            self._words.vocab,
            input,
            before,
            after,
            self._in_place,
        )
        return [
            Grown(
                tuple(one.tokens),
                tuple(one.seconds),
                tuple(one.confidences),
                tuple(one.chances),
                self._probabilities(lane, one.scores),
                one.state,
            )
            for lane, one in zip(
                (lane for lane in lanes if isinstance(lane, Lane)),
                (one for one in grown if one is not None),
                strict=True,
            )
        ]

    def _native(self, lane: Lane) -> Any:
        span, length = lane.span, lane.budget.length
        return extension.require().Lane(
            native_choice(lane.choice),
            length,
            list(lane.stops),
            _price(lane.budget),
            lane.chances,
            lane.probabilities,
            [span.states[position] for position in range(span.end + 1, span.end + length) if span.states],
            lane.budget.siblings,
        )

    def _probabilities(self, lane: Lane, scores: Floats | None) -> NDArray[np.float64] | None:
        """The probabilities of all tokens, from scores of the drafter's words."""
        if not lane.probabilities or scores is None:
            return None
        shares = softmax(scores)
        if shares.shape[1] == self._words.vocab:
            return shares
        whole = np.zeros((len(shares), self._words.vocab))
        columns = np.arange(shares.shape[1]) if self._words.ids is None else self._words.ids
        whole[:, columns] = shares
        return whole


def _price(budget: Budget) -> Any:
    price = budget.price
    if price is None:
        return None
    return extension.require().Price(
        price.row, price.token, price.least, price.sure, price.reached, price.second
    )
