"""Which tokens a draft model says.

A draft need not know every word: the acceptance rule trusts none, and few tokens of a large vocabulary are
frequent. So its output layer, much of a small model's bytes, may be cut to those (FR-Spec, Zhao et al., 2025,
arXiv 2502.14856). The paper counts tokens in a corpus. Here the order in which a vocabulary was merged stands
for their frequency, and what a text has said already is added: its names, and the words of its language.
Where that misses too much, as at the first of a language that was not heard before, the whole layer is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from outrider.models.leaves import Rows
from outrider.models.model import Model
from outrider.ops.lane import Words

MOST_READ = 4096
"""Tokens behind the first ones that are said, beside what ends a text: the latest that were read."""
WORTH_PACKING = 8
"""What was read is taken up as soon as there is an eighth as much of it as there was, and all of it packed
anew: so much packing takes some nine times as long as if each token were packed once."""
LATELY = 64
"""Tokens by which it is judged whether these are enough."""
MANY_MISSED, FEW_MISSED = 0.12, 0.06
"""The shares of tokens that had not been read before, from which on all are said, and below which no more.
With four fifths of the bytes to read and an eighth of the tokens missing, a draft of three tokens gains and
loses about as much."""


class DraftWords(Protocol):
    """The tokens that a draft model says."""

    words: Words
    output: Any
    """The layer whose outputs these are."""

    def learn(self, tokens: Sequence[int]) -> None:
        """The model reads these, and had better be able to say them."""

    def renew(self) -> bool:
        """Take up what was learnt, if it is enough; whether `words` and `output` have changed."""


class AllWords:
    """All that draft and target have."""

    def __init__(self, model: Model, vocab: int) -> None:
        self.words, self.output = Words(vocab), model.output

    def learn(self, tokens: Sequence[int]) -> None:
        """Nothing is left to learn."""

    def renew(self) -> bool:
        return False


class FrequentWords:
    """The first tokens, what ends a text, and what the model read lately; or all, where that is not enough.

    vocab: the target's tokens.
    """

    def __init__(self, model: Model, vocab: int, outputs: Callable[[Rows], Any]) -> None:
        self._model, self._vocab, self._outputs = model, vocab, outputs
        self._first = outputs(np.arange(model.words, dtype=np.int32))
        self._others = range(model.words, min(vocab, model.tree.vocab_size))
        self._ends = frozenset(end for end in model.config.eos_token_ids if end in self._others)
        self._read = dict[int, None]()  # the latest last
        self._fresh = set[int]()  # of these, what is not said yet
        self._missed = 0.0  # the share of what was read lately that had not been read before, and is rare
        self._all = False
        self._take_up()

    def learn(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            missed = False
            if token in self._others and token not in self._ends:
                missed = token not in self._read
                self._read.pop(token, None)
                self._read[token] = None
                if token not in self._said:
                    self._fresh.add(token)
            self._missed += (missed - self._missed) / LATELY
        while len(self._read) > MOST_READ:
            self._fresh.discard(oldest := next(iter(self._read)))
            del self._read[oldest]

    def renew(self) -> bool:
        before, self._all = self._all, self._missed > (FEW_MISSED if self._all else MANY_MISSED)
        if self._all:
            self.words, self.output = Words(self._vocab), self._model.output
            return not before
        if not before and len(self._fresh) * WORTH_PACKING <= len(self._said):
            return False
        self._take_up()
        return True

    def _take_up(self) -> None:
        self._fresh.clear()
        self._said = self._ends | self._read.keys()
        more = np.array(sorted(self._said), np.int32)
        layers = [self._first, self._outputs(more)] if len(more) else [self._first]
        self.output = self._model.backend.as_one(layers)
        self.words = Words(self._vocab, np.concatenate([np.arange(self._others.start), more]))


def words_of(model: Model, vocab: int) -> DraftWords:
    """What a draft model says to a target of so many tokens."""
    if model.some_outputs is None or model.words >= vocab:
        return AllWords(model, vocab)
    return FrequentWords(model, vocab, model.some_outputs)
