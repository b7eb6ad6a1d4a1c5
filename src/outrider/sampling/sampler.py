"""A request's sampling parameters as one function from logits to a distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from outrider.errors import RequestError
from outrider.ops.cpu import extension
from outrider.params import SamplingParams
from outrider.sampling.distribution import (
    Categorical,
    Distribution,
    Greedy,
    NativeCategorical,
    NativeGreedy,
    confidences,
)
from outrider.sampling.edits import (
    BadWords,
    Bias,
    Edit,
    NotYet,
    OnlyTokens,
    OutputPenalty,
    RepetitionPenalty,
)
from outrider.sampling.filters import Filters
from outrider.sampling.grammar import InGrammar
from outrider.sampling.words import Words


@dataclass(frozen=True)
class Kinds:
    """How distributions are represented: what suits the backend that the logits come from.

    confidences: the probability of the likeliest token of each row of logits, 0 where none can be chosen.
    """

    greedy: Callable[[Tensor], Distribution]
    categorical: Callable[[Tensor, Filters], Distribution]
    confidences: Callable[[Tensor], list[float]]


TORCH = Kinds(Greedy, lambda logits, filters: Categorical(filters.scores(logits)), confidences)


def native_kinds(instruction_set: str) -> Kinds:
    return Kinds(
        lambda logits: NativeGreedy(logits, instruction_set),
        lambda logits, filters: NativeCategorical(logits, filters, instruction_set),
        lambda logits: list(extension.require().confidences(logits.numpy(), instruction_set)),
    )


@dataclass(frozen=True)
class Sampler:
    """Edits, then temperature and filters."""

    params: SamplingParams
    edits: tuple[Edit, ...]
    kinds: Kinds = TORCH
    grammar: InGrammar | None = None

    def within(self, grammar: InGrammar) -> Sampler:
        """This sampler, for one sequence that has to stay in a grammar."""
        return replace(self, edits=(*self.edits, grammar), grammar=grammar)

    def edit(self, logits: Tensor, output: Sequence[int], draft: Sequence[int] = ()) -> Tensor:
        """Apply the edits to row i of `logits` [len(draft) + 1, vocab] as it follows `output + draft[:i]`.

        Ends before the first row in which the edits leave no token to choose, or the grammar is not ready for
        part of the draft: [rows <= given, vocab].
        """
        if not self.edits:
            return logits
        logits = logits.clone()
        for i, row in enumerate(logits):
            context = [*output, *draft[:i]]
            if i and self.grammar is not None and not self.grammar.ready(context):
                return logits[:i]
            for edit in self.edits:
                edit.apply(row, context)
            if row.max() == -torch.inf:
                return logits[:i]
        return logits

    def drafted(self, logits: Tensor, output: Sequence[int], words: Words) -> Distribution | None:
        """The distribution of a drafter's `logits` [1, words] as they follow `output`; None where the edits
        leave no token to choose, or the grammar is not ready."""
        if not self.edits:
            return words.among_all(self.distribution(logits))
        if self.grammar is not None and not self.grammar.ready(output):
            return None
        edited = self.edit(words.spread(logits), output)
        return self.distribution(edited) if len(edited) else None

    def distribution(self, logits: Tensor) -> Distribution:
        """The distributions of edited `logits` [rows, vocab]."""
        params = self.params
        if params.temperature < torch.finfo(logits.dtype).tiny:
            return self.kinds.greedy(logits)
        filters = Filters(
            # Finite in the logits' type: -inf over infinity would be NaN.
            temperature=min(params.temperature, torch.finfo(logits.dtype).max),
            min_p=params.min_p,
            top_k=min(max(params.top_k, 0), logits.shape[-1]),
            top_p=params.top_p,
        )
        return self.kinds.categorical(logits, filters)


def build_sampler(
    params: SamplingParams,
    *,
    prompt: Sequence[int],
    bad_words: Sequence[Sequence[int]],
    stop_tokens: frozenset[int],
    vocab: int,
    device: torch.device,
    instruction_set: str | None = None,
) -> Sampler:
    """The sampler of one request; bad_words are token sequences, stop_tokens end an output.

    instruction_set: of the native kernels, which then choose the tokens; None: PyTorch does.
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
        forbidden = torch.ones(vocab, dtype=torch.bool, device=device)
        forbidden[known(params.allowed_token_ids, "allowed_token_ids")] = False
        edits.append(OnlyTokens(forbidden))
    if bad_words:
        edits.append(BadWords([known(sequence, "bad_words") for sequence in bad_words]))
    if params.min_tokens and stop_tokens:
        ends = torch.tensor(known(sorted(stop_tokens), "stop_token_ids"), device=device)
        edits.append(NotYet(params.min_tokens, ends))
    if params.logit_bias:
        tokens = torch.tensor(known(list(params.logit_bias), "logit_bias"), device=device)
        edits.append(Bias(tokens, torch.tensor(list(params.logit_bias.values()), device=device)))
    if params.repetition_penalty != 1:
        edits.append(RepetitionPenalty(params.repetition_penalty, frozenset(prompt)))
    if params.presence_penalty or params.frequency_penalty:
        edits.append(OutputPenalty(params.presence_penalty, params.frequency_penalty))
    return Sampler(params, tuple(edits), TORCH if instruction_set is None else native_kinds(instruction_set))
