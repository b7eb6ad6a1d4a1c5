"""Log-probabilities to report."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from outrider.outputs import Logprob, Logprobs


def likeliest(logits: Tensor, token: int, count: int, decode: Callable[[int], str]) -> Logprobs:
    """`token`, and the `count` likeliest tokens in order. logits: [vocab], before sampling parameters."""
    logprobs = logits.log_softmax(dim=-1)
    ranks = {token: int((logprobs > logprobs[token]).sum()) + 1}
    for rank, other in enumerate(logprobs.topk(min(count, len(logprobs))).indices.tolist(), start=1):
        ranks.setdefault(other, rank)
    return {t: Logprob(float(logprobs[t]), rank, decode(t)) for t, rank in ranks.items()}
