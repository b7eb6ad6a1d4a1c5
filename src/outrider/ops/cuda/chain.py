"""Growing drafts in lockstep: all passes of a draft are launched before anybody waits for its tokens.

A price is asked when the tokens are there. What was drafted behind the end of a draft has changed nothing
before it, and its places of the cache are written again. So a draft has as many passes as the longest budget,
and one wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.budget import Meter
from outrider.ops.cuda.choose import Choosing, RowDraw, choose
from outrider.ops.cuda.forward import GpuForward
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span
from outrider.ops.torch.choose import TorchWords, edited, probabilities


@dataclass
class _Pass:
    """What one pass has drafted for some lanes: of each a token, the next best one, and how sure the drafter
    was; on the device. spread: of a lane that wants more, its logits among all tokens, [1, vocab]."""

    lanes: list[int]
    tokens: Tensor
    seconds: Tensor
    confidences: Tensor
    chances: Tensor
    spread: dict[int, Tensor] = field(default_factory=dict)
    kept: Tensor | None = None


class GpuChain:
    """See `outrider.ops.lane.DraftChain`."""

    def __init__(self, first: GpuForward, then: GpuForward, words: Words, *, in_place: bool = False) -> None:
        self._first, self._then, self._words, self._in_place = first, then, words, in_place

    @torch.inference_mode()
    def __call__(self, lanes: Sequence[Lane | Span], input: Any = None) -> list[Grown]:
        spans = [lane.span if isinstance(lane, Lane) else lane for lane in lanes]
        growing = [lane for lane in lanes if isinstance(lane, Lane)]
        logits, kept = self._first.run(spans, input)
        passes, active = list[_Pass](), [*range(len(growing))]
        while active:
            passes.append(self._drafted(growing, active, logits, kept, len(passes)))
            goes_on = [n for n, lane in enumerate(active) if growing[lane].budget.length > len(passes)]
            active = [active[n] for n in goes_on]
            if active:
                chosen = torch.tensor(goes_on, device=logits.device)
                tokens = (
                    passes[-1].tokens[chosen].clamp(min=0)
                )  # behind a row without a token nothing is read
                given = None if kept is None else kept[chosen]
                number = len(passes)
                next_spans = [self._next(growing[lane].span, number) for lane in active]
                logits, kept = self._then.run(next_spans, given, tokens)
        fetched = [_Fetched.of(each) for each in passes]
        return [self._grown(lane, number, fetched) for number, lane in enumerate(growing)]

    def _drafted(
        self, growing: Sequence[Lane], active: Sequence[int], logits: Tensor, kept: Tensor | None, number: int
    ) -> _Pass:
        words = TorchWords.of(self._words, logits.shape[1], logits.device)
        choices = [
            replace(growing[lane].choice, position=growing[lane].choice.position + number) for lane in active
        ]
        asked = [
            one for row, choice in enumerate(choices) for one in RowDraw.of(replace(choice, edits=()), row)
        ]
        choosing = Choosing(logits, asked, words.ids, words.columns)
        columns = choosing.columns()
        tokens, confidences = _tokens(columns, words), choosing.confidences()
        spread = {
            lane: words.spread(logits[row : row + 1, : words.columns])
            for row, lane in enumerate(active)
            if choices[row].edits or growing[lane].chances or growing[lane].probabilities
        }
        for row, choice in enumerate(choices):
            if choice.edits:
                tokens[row : row + 1] = choose(edited(spread[active[row]], choice), RowDraw.of(choice, 0))
        siblings = any(growing[lane].budget.siblings for lane in active)
        seconds = _tokens(choosing.columns(columns), words) if siblings else torch.full_like(tokens, -1)
        chances = confidences.new_zeros(len(tokens))
        for row, lane in enumerate(active):
            if growing[lane].chances:
                chances[row] = (
                    spread[lane][0].softmax(-1).gather(0, tokens[row : row + 1].clamp(min=0).long())[0]
                )
        return _Pass([*active], tokens, seconds, confidences, chances, spread, kept)

    def _next(self, span: Span, number: int) -> Span:
        """The row of the token that pass `number` reads, whose number the device knows."""
        start = span.end - 1 if self._in_place else span.end - 1 + number
        return replace(span, tokens=(0,), start=start, logit_rows=1, parents=())

    def _grown(self, lane: Lane, number: int, passes: Sequence[_Fetched]) -> Grown:
        meter, priced = Meter(lane.budget), lane.budget.price is not None
        tokens, seconds, sure = list[int](), list[int](), list[float]()
        chances, drawn = list[float](), list[NDArray[np.float64]]()
        state = None
        for depth, each in enumerate(passes):
            row = each.lanes.index(number)
            wanted = (
                meter.forks(each.confidences[row]) and sum(one >= 0 for one in seconds) < lane.budget.siblings
            )
            if not meter.takes(each.confidences[row] if priced else 1.0) or each.tokens[row] < 0:
                break
            tokens.append(each.tokens[row])
            seconds.append(max(-1, each.seconds[row]) if wanted else -1)
            if priced:
                sure.append(each.confidences[row])
            if lane.chances:
                chances.append(each.chances[row])
            if lane.probabilities:
                choice = replace(lane.choice, position=lane.choice.position + depth)
                drawn.append(probabilities(each.spread[number], choice)[0])
            state = None if each.kept is None else each.kept[row : row + 1]
            if tokens[-1] in lane.stops or not meter.goes_on():
                break
        stacked = np.stack(drawn) if drawn else None
        return Grown(tuple(tokens), tuple(seconds), tuple(sure), tuple(chances), stacked, state)


@dataclass(frozen=True)
class _Fetched:
    """The same on the host."""

    lanes: list[int]
    tokens: list[int]
    seconds: list[int]
    confidences: list[float]
    chances: list[float]
    spread: dict[int, Tensor]
    kept: Tensor | None

    @classmethod
    def of(cls, made: _Pass) -> _Fetched:
        return cls(
            made.lanes,
            made.tokens.tolist(),
            made.seconds.tolist(),
            made.confidences.tolist(),
            made.chances.tolist(),
            made.spread,
            made.kept,
        )


def _tokens(columns: Tensor, words: TorchWords) -> Tensor:
    """The target's ids of columns; a `NoToken` stays what it is."""
    if words.ids is None:
        return columns.clone()
    return torch.where(columns < 0, columns, words.ids[columns.clamp(min=0)].to(torch.int32))
