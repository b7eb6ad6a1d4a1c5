"""What edits mean, in plain Python and slowly. Logits are lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from outrider.params import SamplingParams

Row = list[float]
Given = Callable[[int], dict[str, Any]]


def edited(
    logits: Sequence[float],
    output: Sequence[int],
    params: SamplingParams,
    prompt: Sequence[int],
    bad_words: Sequence[Sequence[int]],
    stop_tokens: frozenset[int],
) -> Row:
    """The logits of the token after `output`, edited token by token."""
    return [
        _value(token, value, tuple(output), params, prompt, bad_words, stop_tokens)
        for token, value in enumerate(logits)
    ]


def _value(
    token: int,
    value: float,
    output: tuple[int, ...],
    params: SamplingParams,
    prompt: Sequence[int],
    bad_words: Sequence[Sequence[int]],
    stop_tokens: frozenset[int],
) -> float:
    text = (*output, token)
    if params.allowed_token_ids is not None and token not in params.allowed_token_ids:
        return -math.inf
    if any(text[-len(word) :] == tuple(word) for word in bad_words):
        return -math.inf
    if token in stop_tokens and len(output) < params.min_tokens:
        return -math.inf
    value += (params.logit_bias or {}).get(token, 0.0)
    if token in prompt or token in output:
        change: Callable[[float, float], float] = float.__truediv__ if value > 0 else float.__mul__
        value = change(float(value), params.repetition_penalty)
    if token in output:
        value -= params.presence_penalty + params.frequency_penalty * output.count(token)
    return value
