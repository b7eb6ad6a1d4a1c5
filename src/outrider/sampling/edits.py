"""What some sampling parameters do to a row of logits: changes that depend on what was written so far.

Each row of a verification is edited in the context it would have in plain decoding: the committed output
and the draft before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from outrider.ops.choice import Add, Allow, Bar, Change, Ids, Penalise


class Edit(Protocol):
    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        """What is done to the logits of the token that follows `output`."""


@dataclass(frozen=True)
class Always:
    """The same for every token: allowed_token_ids and logit_bias."""

    change: Change

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        return (self.change,)


class BadWords:
    """bad_words: no token may complete one of these token sequences.

    They are kept by the token before the last, so that a row looks at those alone that may go on from there.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._always = {last for *beginning, last in sequences if not beginning}
        self._after: dict[int, list[tuple[list[int], int]]] = {}
        for *beginning, last in sequences:
            if beginning:
                self._after.setdefault(beginning[-1], []).append((beginning, last))

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        barred = set(self._always)
        for beginning, last in self._after.get(output[-1], ()) if output else ():
            if list(output[-len(beginning) :]) == beginning:
                barred.add(last)
        return (Bar(ids(barred)),) if barred else ()


@dataclass(frozen=True, eq=False)
class NotYet:
    """min_tokens: `tokens`, which would end the output, are barred until it has `length` tokens."""

    length: int
    tokens: Ids

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        return (Bar(self.tokens),) if len(output) < self.length else ()


@dataclass(frozen=True)
class RepetitionPenalty:
    """Tokens seen in prompt or output become less likely. prompt: the distinct tokens of the prompt."""

    penalty: float
    prompt: frozenset[int]

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        return (Penalise(ids(self.prompt.union(output)), self.penalty),)


@dataclass(frozen=True)
class OutputPenalty:
    """presence and frequency penalties, as OpenAI defines them, over the output alone."""

    presence: float
    frequency: float

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        counts = Counter(output)
        if not counts:
            return ()
        values = [-(self.presence + self.frequency * n) for n in counts.values()]
        return (Add(ids(counts), np.array(values, np.float32)),)


def only(tokens: Sequence[int], vocab: int) -> Allow:
    """All others are barred."""
    mask = np.zeros(vocab, np.bool_)
    mask[list(tokens)] = True
    return Allow(mask)


def ids(tokens: Sequence[int] | set[int] | frozenset[int] | Counter[int]) -> Ids:
    """Different tokens, as changes take them."""
    return np.fromiter(tokens, np.int64, len(tokens))
