"""What a drafter with fewer tokens says, as its target's vocabulary has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider.ops.choice import Add, Allow, Bar, Choice, Edits, Filters, NoToken
from outrider.ops.lane import Words
from outrider.ops.torch.choose import TorchRows, TorchWords, choose, confidence
from outrider.verification.noise import Noise, Stream

VOCAB = 3000
IDS = np.arange(0, VOCAB, 7)
KEY = Noise(3).key(Stream.TOKEN)


def words(ids: np.ndarray[tuple[int], np.dtype[np.int64]] | None = IDS, width: int = len(IDS)) -> TorchWords:
    return TorchWords.of(Words(VOCAB, ids), width, torch.device("cpu"))


def chosen(said: TorchWords, logits: Tensor, filters: Filters | None, edits: Edits = ()) -> list[int]:
    """A token a row, each at a position of its own."""
    return [
        said.choose(row, Choice(1, filters, KEY, position, [edits] if edits else ()))
        for position, row in enumerate(logits[:, None])
    ]


@pytest.mark.parametrize(
    ("filters", "edits"),
    [
        (None, ()),
        (Filters(1.0), ()),
        (Filters(0.7, top_k=20), ()),
        (Filters(1.5, top_p=0.8, min_p=0.01), ()),
        (Filters(1.0), (Add(np.array([14]), np.array([30], np.float32)),)),
        (None, (Bar(np.arange(VOCAB // 2)),)),
    ],
    ids=str,
)
def test_as_if_the_others_were_impossible(filters: Filters | None, edits: Edits) -> None:
    logits = torch.randn(200, len(IDS), generator=torch.Generator().manual_seed(1))
    spread = torch.full((200, VOCAB), -torch.inf)
    spread[:, IDS] = logits
    assert torch.equal(words().spread(logits), spread)
    expected = choose(spread, Choice(200, filters, KEY, 0, [edits] * 200 if edits else ()))
    assert chosen(words(), logits, filters, edits) == expected
    if filters is not None and not edits:  # other tokens' noise: the check can fail
        assert [token - 1 for token in chosen(words(IDS + 1), logits, filters)] != expected


def test_padding_is_never_drafted() -> None:
    """Columns beyond the target's vocabulary, and what lies beyond those of a small draft."""
    logits = torch.zeros(1, VOCAB + 40)
    logits[0, VOCAB + 3], logits[0, 77] = 9.0, 1.0
    said = words(None, VOCAB + 40)
    assert said.columns == VOCAB
    assert chosen(said, logits[:, :VOCAB], None) == [77]
    small = words(None, 50)
    assert small.columns == 50
    spread = small.spread(torch.ones(1, 50))
    assert spread.shape == (1, VOCAB)
    assert bool((spread[0, 50:] == -torch.inf).all())


@pytest.mark.parametrize("filters", [None, Filters(1.0)])
def test_no_token_is_none(filters: Filters | None) -> None:
    logits = torch.full((1, len(IDS)), torch.nan)
    assert chosen(words(), logits, filters) == [NoToken.NAN]
    assert confidence(logits) == 0


def test_edits_that_leave_no_token() -> None:
    only = Allow(np.arange(VOCAB) == 1)  # which the drafter does not have
    assert chosen(words(), torch.zeros(1, len(IDS)), None, (only,)) == [NoToken.NOTHING]


def test_confidence_is_the_share_of_the_likeliest() -> None:
    logits = torch.randn(1, 900, generator=torch.Generator().manual_seed(2)) * 5
    assert confidence(logits) == pytest.approx(float(logits.softmax(-1).max()))
    # Of all words, whatever parameters of sampling make of them.
    looked = TorchRows(logits, Choice(1, Filters(0.1)))
    assert confidence(logits) < looked.probabilities().max()
