"""What a drafter with fewer tokens says, as its target's vocabulary has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from outrider.ops.cpu import extension
from outrider.params import SamplingParams
from outrider.sampling.distribution import NO_TOKEN
from outrider.sampling.sampler import TORCH, Kinds, Sampler, build_sampler, native_kinds
from outrider.sampling.words import SomeTokens
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import Spot, SpotDraw

VOCAB = 3000
WORDS = SomeTokens(torch.arange(0, VOCAB, 7), VOCAB)
KINDS = [TORCH, native_kinds(extension.require().instruction_sets()[0])]


def sampler(kinds: Kinds, **params: object) -> Sampler:
    built = build_sampler(
        SamplingParams(**params),  # type: ignore[arg-type]
        prompt=[],
        bad_words=[],
        stop_tokens=frozenset(),
        vocab=VOCAB,
        device=torch.device("cpu"),
    )
    return replace(built, kinds=kinds)


def chosen(made: Sampler, logits: torch.Tensor, words: SomeTokens, output: Sequence[int] = ()) -> list[int]:
    found = []
    for position, row in enumerate(logits[:, None]):
        distribution = made.drafted(row, output, words)
        assert distribution is not None
        found += distribution.choose(SpotDraw(Spot(Noise(3), position), Stream.TOKEN))
    return found


@pytest.mark.parametrize("kinds", KINDS, ids=["torch", "native"])
@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 20},
        {"temperature": 1.5, "top_p": 0.8, "min_p": 0.01},
        {"temperature": 1.0, "logit_bias": {14: 30.0}},
    ],
    ids=str,
)
def test_as_if_the_others_were_impossible(kinds: Kinds, params: dict[str, object]) -> None:
    logits = torch.randn(200, len(WORDS.ids), generator=torch.Generator().manual_seed(1))
    made = sampler(kinds, **params)
    spread = torch.full((200, VOCAB), -torch.inf)
    spread[:, WORDS.ids] = logits
    expected = [
        token
        for position, row in enumerate(spread[:, None])
        for token in made.distribution(made.edit(row, ())).choose(
            SpotDraw(Spot(Noise(3), position), Stream.TOKEN)
        )
    ]
    assert chosen(made, logits, WORDS) == expected
    shifted = SomeTokens(WORDS.ids + 1, VOCAB)  # other tokens' noise: the check can fail
    if params["temperature"] and "logit_bias" not in params:
        assert [token - 1 for token in chosen(made, logits, shifted)] != expected
    distribution = made.drafted(logits[:1], (), WORDS)
    assert distribution is not None
    probabilities = made.distribution(made.edit(spread[:1], ())).probabilities()
    torch.testing.assert_close(distribution.probabilities(), probabilities)


@pytest.mark.parametrize("kinds", KINDS, ids=["torch", "native"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_token_is_none(kinds: Kinds, temperature: float) -> None:
    logits = torch.full((1, len(WORDS.ids)), torch.nan)
    assert chosen(sampler(kinds, temperature=temperature), logits, WORDS) == [NO_TOKEN]


def test_edits_that_leave_no_token() -> None:
    only = sampler(TORCH, allowed_token_ids=[1])  # which the drafter does not have
    assert only.drafted(torch.zeros(1, len(WORDS.ids)), (), WORDS) is None
