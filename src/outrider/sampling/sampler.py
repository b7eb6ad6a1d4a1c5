"""A request's sampling parameters as one function from logits to a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.errors import RequestError
from outrider.params import SamplingParams
from outrider.sampling.distribution import Categorical, Distribution, Greedy
from outrider.sampling.edits import (
    BadWords,
    Bias,
    Edit,
    NotYet,
    OnlyTokens,
    OutputPenalty,
    RepetitionPenalty,
)
from outrider.sampling.filters import keep_min_p, keep_top_k, keep_top_p


@dataclass(frozen=True)
class Sampler:
    """Edits, then temperature, min-p, top-k and top-p, in vLLM's order."""

    params: SamplingParams
    edits: tuple[Edit, ...]

    def edit(self, logits: Tensor, output: Sequence[int], draft: Sequence[int] = ()) -> Tensor:
        """Apply the edits to row i of `logits` [len(draft) + 1, vocab] as it follows `output + draft[:i]`.

        Ends before the first row in which the edits leave no token to choose: [rows <= given, vocab].
        """
        if not self.edits:
            return logits
        logits = logits.clone()
        for i, row in enumerate(logits):
            context = [*output, *draft[:i]]
            for edit in self.edits:
                edit.apply(row, context)
            if row.max() == -torch.inf:
                return logits[:i]
        return logits

    def distribution(self, logits: Tensor) -> Distribution:
        """The distributions of edited `logits` [rows, vocab]."""
        params = self.params
        if params.temperature < torch.finfo(logits.dtype).tiny:
            return Greedy(logits)
        # Relative to the largest, so that a tiny temperature makes nothing infinite.
        scores = (logits - logits.max(dim=-1, keepdim=True).values) / params.temperature
        if params.min_p > 0:
            scores = keep_min_p(scores, params.min_p)
        if params.top_k > 0:
            scores = keep_top_k(scores, params.top_k)
        if params.top_p < 1:
            scores = keep_top_p(scores, params.top_p)
        return Categorical(scores)


def build_sampler(
    params: SamplingParams,
    *,
    prompt: Sequence[int],
    bad_words: Sequence[Sequence[int]],
    stop_tokens: frozenset[int],
    vocab: int,
    device: torch.device,
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
        forbidden = torch.ones(vocab, dtype=torch.bool, device=device)
        forbidden[known(params.allowed_token_ids, "allowed_token_ids")] = False
        edits.append(OnlyTokens(forbidden))
    if bad_words:
        edits.append(BadWords(tuple(tuple(known(sequence, "bad_words")) for sequence in bad_words)))
    if params.min_tokens and stop_tokens:
        edits.append(NotYet(params.min_tokens, tuple(sorted(known(list(stop_tokens), "stop_token_ids")))))
    if params.logit_bias:
        tokens = torch.tensor(known(list(params.logit_bias), "logit_bias"), device=device)
        edits.append(Bias(tokens, torch.tensor(list(params.logit_bias.values()), device=device)))
    if params.repetition_penalty != 1:
        edits.append(RepetitionPenalty(params.repetition_penalty, frozenset(prompt)))
    if params.presence_penalty or params.frequency_penalty:
        edits.append(OutputPenalty(params.presence_penalty, params.frequency_penalty))
    return Sampler(params, tuple(edits))
