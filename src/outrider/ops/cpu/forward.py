"""A definition that is recorded once and replayed by native code in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.cache.store import StateCache
from outrider.formats.format import Floats
from outrider.ops.base import Cache, Definition, Passed
from outrider.ops.choice import Add, Allow, Bar, Change, Choice, Filters, Penalise, Ranked, Stepped
from outrider.ops.cpu import extension
from outrider.ops.cpu.recorder import Recorder
from outrider.ops.span import Span


class NativeForward:
    """See `outrider.ops.base.Forward`. Arrays are NumPy's, float32."""

    def __init__(
        self, threads: Any, instruction_set: str, definition: Definition, cache: Sequence[Cache]
    ) -> None:
        self.program = extension.require().Program(threads, instruction_set)
        self.program.output(definition(Recorder(self.program), cache))
        self._instruction_set = instruction_set
        self._has_states = any(isinstance(one, StateCache) for one in cache)

    def __call__(self, spans: Sequence[Span], input: Floats | None = None) -> Passed:
        kept = self._room(spans)
        rows = logit_rows(spans)
        before, after = self.slots(spans)
        logits = self.program.run(*arguments(spans), rows, input, kept, before, after, _parents(spans))
        return Passed(logits, kept)

    def step(
        self,
        spans: Sequence[Span],
        choices: Sequence[Choice | None],
        input: Floats | None = None,
        *,
        looks: bool = False,
    ) -> Stepped:
        kept = self._room(spans)
        before, after = self.slots(spans)
        tokens, logits = self.program.step(
            *arguments(spans),
            logit_rows(spans),
            [native_choice(one) for one in choices],
            input,
            kept,
            before,
            after,
            looks,
            _parents(spans),
        )
        return Stepped(tokens, self._rows(spans, choices, logits) if looks else None, kept)

    def move(self, tables: Sequence[Sequence[int]], places: Sequence[int], to: int) -> None:
        self.program.move(tables, places, range(to, to + len(places)))

    def slots(self, spans: Sequence[Span]) -> tuple[list[int], list[list[int]]] | tuple[None, None]:
        """The slots of states that a pass reads and writes, as the program takes them: -1 where there is
        none, and None for a program that has no states."""
        if not self._has_states:
            return None, None
        before = [-1 if span.state is None else span.state for span in spans]
        return before, [[span.new_states.get(row, -1) for row in range(len(span.tokens))] for span in spans]

    def _room(self, spans: Sequence[Span]) -> Floats | None:
        """The room for what the program keeps of a pass."""
        width = self.program.kept_width
        if not width:
            return None
        of_logits = self.program.keeps_logit_rows
        rows = sum(span.logit_rows if of_logits else len(span.tokens) for span in spans)
        return np.empty((rows, width), np.float32)

    def _rows(
        self, spans: Sequence[Span], choices: Sequence[Choice | None], logits: Floats
    ) -> Sequence[NativeRows]:
        ends = accumulate(logit_rows(spans), initial=0)
        return [
            NativeRows(logits[first:last], choice, self._instruction_set)
            for (first, last), choice in zip(pairwise(ends), choices, strict=True)
        ]


@dataclass(frozen=True)
class NativeRows:
    """See `outrider.ops.choice.Rows`. logits: float32 [logit rows, vocab]."""

    logits: Floats
    choice: Choice | None
    instruction_set: str

    def ranked(self, row: int, token: int, count: int) -> list[Ranked]:
        found = extension.require().ranked(self.logits[row], token, count, self.instruction_set)
        return [Ranked(*one) for one in found]

    def probabilities(self) -> NDArray[np.float64]:
        choice = self.choice
        assert choice is not None, "nothing is chosen from these rows"
        rows = self.logits[choice.skip : choice.skip + choice.rows]
        return softmax(extension.require().scores(rows, native_choice(choice), self.instruction_set))


def softmax(scores: Floats) -> NDArray[np.float64]:
    """The softmax of each row; NaN where a row holds one."""
    shares = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    whole: NDArray[np.float64] = shares / shares.sum(axis=-1, keepdims=True)
    return whole


def arguments(spans: Sequence[Span]) -> tuple[Any, ...]:
    """Where the rows of spans lie, as a program takes it."""
    return (
        [token for span in spans for token in span.tokens],
        [span.start for span in spans],
        [len(span.tokens) for span in spans],
        [span.tables for span in spans],
    )


def logit_rows(spans: Sequence[Span]) -> list[int]:
    """How many rows of each span need logits."""
    return [span.logit_rows for span in spans]


def _parents(spans: Sequence[Span]) -> Sequence[Sequence[int]]:
    """The parents of the spans' trees; none where no span has one."""
    return [span.parents for span in spans] if any(span.parents for span in spans) else ()


def native_choice(choice: Choice | None) -> Any:
    """A choice as native code takes it."""
    if choice is None:
        return None
    return extension.require().Choice(
        choice.skip,
        choice.rows,
        None if choice.filters is None else _filters(choice.filters),
        choice.key,
        choice.position,
        [[_change(change) for change in row] for row in choice.edits],
        choice.offsets,
    )


@lru_cache(maxsize=1024)
def _filters(filters: Filters) -> Any:
    return extension.require().Filters(filters.temperature, filters.min_p, filters.top_k, filters.top_p)


def _change(change: Change) -> Any:
    make = extension.require().Change
    match change:
        case Bar():
            return make.bar(change.ids)
        case Allow():
            return make.allow(change.mask)
        case Add():
            return make.add(change.ids, change.values)
        case Penalise():
            return make.penalise(change.ids, change.factor)
