"""A request's sampling parameters as values that a backend carries out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from outrider.errors import RequestError
from outrider.ops.choice import Add, Edits, Filters
from outrider.params import SamplingParams
from outrider.sampling.edits import (
    Always,
    BadWords,
    Edit,
    NotYet,
    OutputPenalty,
    RepetitionPenalty,
    ids,
    only,
)
from outrider.sampling.grammar import InGrammar

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Sampler:
    """Edits, then temperature and filters; filters None: the likeliest token."""

    filters: Filters | None
    edits: tuple[Edit, ...] = ()
    grammar: InGrammar | None = None

    def within(self, grammar: InGrammar) -> Sampler:
        """This sampler, for one sequence that has to stay in a grammar."""
        return replace(self, edits=(*self.edits, grammar), grammar=grammar)

    def rows(self, contexts: Iterable[Sequence[int]]) -> list[Edits]:
        """The edits of rows as they follow these outputs, up to the first but one for which the grammar is
        not ready."""
        rows: list[Edits] = []
        for context in contexts:
            if rows and not self.ready(context):
                break
            rows.append(tuple(change for edit in self.edits for change in edit.changes(context)))
        return rows

    def ready(self, output: Sequence[int]) -> bool:
        """Whether it can be said at once what may follow."""
        return self.grammar is None or self.grammar.ready(output)


def build_sampler(
    params: SamplingParams,
    *,
    prompt: Sequence[int],
    bad_words: Sequence[Sequence[int]],
    stop_tokens: frozenset[int],
    vocab: int,
) -> Sampler:
    """The sampler of one request; bad_words are token sequences, stop_tokens end an output.

    Raises RequestError for a token id that the model does not have.
    """

    def known(tokens: Sequence[int], name: str) -> list[int]:
        for token in tokens:
            if not 0 <= token < vocab:
                raise RequestError(f"{name} holds token id {token}; the model's ids are 0 to {vocab - 1}")
        return list(tokens)

    known(params.stop_token_ids, "stop_token_ids")
    edits: list[Edit] = []
    if params.allowed_token_ids is not None:
        edits.append(Always(only(known(params.allowed_token_ids, "allowed_token_ids"), vocab)))
    if bad_words:
        edits.append(BadWords([known(sequence, "bad_words") for sequence in bad_words]))
    if params.min_tokens and stop_tokens:
        edits.append(NotYet(params.min_tokens, ids(known(sorted(stop_tokens), "stop_token_ids"))))
    if params.logit_bias:
        tokens = ids(known(list(params.logit_bias), "logit_bias"))
        edits.append(Always(Add(tokens, np.array(list(params.logit_bias.values()), np.float32))))
    if params.repetition_penalty != 1:
        edits.append(RepetitionPenalty(params.repetition_penalty, frozenset(prompt)))
    if params.presence_penalty or params.frequency_penalty:
        edits.append(OutputPenalty(params.presence_penalty, params.frequency_penalty))
    return Sampler(_filters(params, vocab), tuple(edits))


def _filters(params: SamplingParams, vocab: int) -> Filters | None:
    if params.temperature < SMALLEST:
        return None
    # Finite in float32: -inf over infinity would be NaN.
    temperature = min(params.temperature, LARGEST)
    return Filters(temperature, params.min_p, min(max(params.top_k, 0), vocab), params.top_p)
