"""Speculative decoding, whole: python -m examples.speculation_in_60_lines [model]

A guess of several tokens costs the target one pass, and only what it says itself is kept.
"""

from __future__ import annotations

import sys

from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.choice import Choice, Filters
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.span import Span
from outrider.verification.accept import coupled
from outrider.verification.noise import Noise, Stream

SAMPLED = Filters(temperature=0.7, top_p=0.95)


def guess(tokens: list[int], length: int) -> list[int]:
    """What followed the last time the last two tokens stood in the text."""
    for end in range(len(tokens) - 2, 1, -1):
        if tokens[end - 2 : end] == tokens[-2:]:
            return tokens[end : end + length]
    return []


def generate(target: ModelRunner, prompt: list[int], count: int, length: int) -> tuple[list[int], int]:
    """`count` tokens, and the passes that they took. length: of a draft; 0 is plain decoding."""
    tokens, passes = list(prompt), 0
    key = Noise(seed=1).key(Stream.TOKEN)
    table = target.table()
    while len(tokens) < len(prompt) + count:
        draft = guess(tokens, length)
        rows = [*tokens[table.filled :], *draft]  # what is known and not computed yet, and then the draft
        start = table.filled
        table.extend(start + len(rows), drafted=len(draft))
        span = Span(rows, start, table.tables, len(draft) + 1, table.states)
        # The target's own token after each drafted one, and one more. Its noise is that of the position, so
        # it is the token that plain decoding would choose there.
        choice = Choice(len(draft) + 1, SAMPLED, key, len(tokens) - len(prompt))
        chosen = target.step([span], [choice]).tokens[0]
        verdict = coupled(chosen, draft)
        tokens += verdict.tokens
        table.advance(tokens, len(tokens) - 1)  # forget what fell
        passes += 1
    table.truncate(0)
    return tokens[len(prompt) :][:count], passes


def main(name: str) -> None:
    checkpoint = open_checkpoint(name)
    backend = NativeBackend(cache_dtype="bfloat16")
    target = ModelRunner(Model(checkpoint, backend), num_blocks=64, block_size=16, prefix_caching=False)
    prompt = checkpoint.tokenizer().encode("Once upon a time there was a fox. Once upon a time there was a")
    plain, passes = generate(target, prompt, count=60, length=0)
    speculative, fewer = generate(target, prompt, count=60, length=5)
    print(checkpoint.tokenizer().decode(speculative))
    print(f"the same tokens: {speculative == plain}; {fewer} passes in place of {passes}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["smollm2"])
