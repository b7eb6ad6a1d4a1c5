"""Growing drafts in lockstep: all passes of a draft are launched before anybody waits for its tokens.

A price is asked when the tokens are there. What was drafted behind the end of a draft has changed nothing
before it, and its places of the cache are written again. So a draft has as many passes as the longest budget,
and one wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.budget import Meter
from outrider.ops.cuda.choose import Choosing, Draws, RowDraw, choose, edited
from outrider.ops.cuda.device import computing_on, send, upload
from outrider.ops.cuda.forward import GpuForward
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span
from outrider.ops.torch.choose import TorchWords, probabilities


@dataclass
class _Pass:
    """What one pass has drafted for some lanes, on the device.

    numbers: int32 [4, lanes]: tokens, the next best ones, and as the bits of float32 how sure the drafter was
    and the chances of the tokens. spread: of a lane that wants more, its logits among all tokens, [1, vocab].
    kept: [lanes, width].
    """

    lanes: list[int]
    numbers: Tensor
    spread: dict[int, Tensor]
    kept: Tensor | None


class GpuChain:
    """See `outrider.ops.lane.DraftChain`."""

    def __init__(self, first: GpuForward, then: GpuForward, words: Words, *, in_place: bool = False) -> None:
        self._first, self._then, self._in_place = first, then, in_place
        ids = None if words.ids is None else upload({"ids": words.ids}, first.device)["ids"]
        self._vocab, self._ids = words.vocab, ids

    @torch.inference_mode()
    def __call__(self, lanes: Sequence[Lane | Span], input: Any = None) -> list[Grown]:
        with computing_on(self._first.device):
            return self._grow(lanes, input)

    def _grow(self, lanes: Sequence[Lane | Span], input: Any) -> list[Grown]:
        spans = [lane.span if isinstance(lane, Lane) else lane for lane in lanes]
        growing = [lane for lane in lanes if isinstance(lane, Lane)]
        by, (logits, kept) = self._first, self._first.run(spans, input)
        passes, active = list[_Pass](), [*range(len(growing))]
        while active:
            drafted = self._drafted(by, growing, active, logits, kept, len(passes))
            passes.append(drafted)
            goes_on = [n for n, lane in enumerate(active) if growing[lane].budget.length > len(passes)]
            active = [active[n] for n in goes_on]
            if active:
                chosen = send(np.array(goes_on), logits.device)
                # Behind a row without a token nothing is read.
                tokens = drafted.numbers[0, chosen].clamp(min=0)
                given = None if drafted.kept is None else drafted.kept[chosen]
                spans = [self._next(growing[lane].span, len(passes)) for lane in active]
                by, (logits, kept) = self._then, self._then.run(spans, given, tokens)
        fetched = _Fetched.all(passes)
        return [self._grown(lane, number, fetched) for number, lane in enumerate(growing)]

    def _drafted(
        self,
        by: GpuForward,
        growing: Sequence[Lane],
        active: Sequence[int],
        logits: Tensor,
        kept: Tensor | None,
        number: int,
    ) -> _Pass:
        """by: whose pass the logits are of."""
        words = self._words(logits.shape[1])
        lanes = [growing[lane] for lane in active]
        choices = [replace(lane.choice, position=lane.choice.position + number) for lane in lanes]
        plain = [RowDraw.of(replace(choice, edits=()), row) for row, choice in enumerate(choices)]
        draws = Draws.of([one for each in plain for one in each], words.columns)
        siblings = any(lane.budget.siblings for lane in lanes)
        key = ("draft", logits.data_ptr(), draws.by_k, draws.by_p, siblings)
        numbers = by.graphs.run(
            key if by.graphs.holds(logits) else None,
            draws.arrays,
            lambda given: (_numbers(logits, draws, given, words, siblings=siblings),),
        )[0][:, : len(active)].clone()
        spread = {
            lane: words.spread(logits[row : row + 1, : words.columns])
            for row, lane in enumerate(active)
            if choices[row].edits or growing[lane].chances or growing[lane].probabilities
        }
        for row, (lane, choice) in enumerate(zip(active, choices, strict=True)):
            token = numbers[0, row : row + 1]
            if choice.edits:
                token.copy_(choose(edited(spread[lane], choice), RowDraw.of(choice, 0)))
            if growing[lane].chances:
                chance = spread[lane][0].softmax(-1).gather(0, token.clamp(min=0).long())
                numbers[3, row : row + 1] = chance.view(torch.int32)
        return _Pass([*active], numbers, spread, None if kept is None else kept.clone())

    def _words(self, width: int) -> TorchWords:
        """The drafter's words, in logits of so many columns."""
        columns = min(width, self._vocab) if self._ids is None else len(self._ids)
        return TorchWords(self._vocab, self._ids, columns)

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
    def all(cls, passes: Sequence[_Pass]) -> list[_Fetched]:
        """Those of a draft, for which the host waits once."""
        if not passes:
            return []
        numbers = torch.cat([each.numbers.flatten() for each in passes]).cpu().numpy()
        ends = np.cumsum([each.numbers.numel() for each in passes])[:-1]
        return [
            cls(each.lanes, *_of_types(part.reshape(4, -1)), each.spread, each.kept)
            for each, part in zip(passes, np.split(numbers, ends), strict=True)
        ]


def _of_types(numbers: NDArray[np.int32]) -> tuple[list[int], list[int], list[float], list[float]]:
    shares = numbers[2:].view(np.float32)
    return numbers[0].tolist(), numbers[1].tolist(), shares[0].tolist(), shares[1].tolist()


def _numbers(
    logits: Tensor, draws: Draws, given: Mapping[str, Tensor], words: TorchWords, *, siblings: bool
) -> Tensor:
    """See `_Pass.numbers`; the chances are 0."""
    choosing = Choosing(logits, draws, given, words.ids)
    columns = choosing.columns()
    tokens = _tokens(columns, words)
    seconds = _tokens(choosing.columns(columns), words) if siblings else torch.full_like(tokens, -1)
    sure = choosing.confidences().view(torch.int32)
    return torch.stack([tokens, seconds, sure, torch.zeros_like(tokens)])


def _tokens(columns: Tensor, words: TorchWords) -> Tensor:
    """The target's ids of columns; a `NoToken` stays what it is."""
    if words.ids is None:
        return columns
    return torch.where(columns < 0, columns, words.ids[columns.clamp(min=0)].to(torch.int32))
