"""Noise and choice on the GPU's kernels: the bits of the noise, and the reference's tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from outrider.ops.choice import Bar, Choice, Filters
from outrider.ops.cuda import choose as choose_module
from outrider.ops.cuda import noise
from outrider.ops.cuda.backend import GpuBackend
from outrider.ops.cuda.choose import Choosing, Draws, RowDraw, choose
from outrider.ops.cuda.device import upload
from outrider.ops.noise import GOLDEN, folded, mix
from outrider.ops.span import Span
from outrider.ops.torch.choose import choose as reference
from outrider.ops.torch.choose import confidence
from outrider.ops.torch.noise import gumbel
from tests.ops.cuda import DEVICE, ON_GPU

KEYS = (0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0)
LARGEST = 250_000
VOCAB = LARGEST if ON_GPU else 2100
FILTERS = (
    None,
    Filters(1.0),
    Filters(0.7, 0.001, 40, 0.8),
    Filters(1.3, top_p=0.3),
    Filters(2.0, top_k=3),
    Filters(1e-30),
)


@triton.jit
def _noise(keys, bits_out, values_out, count: tl.constexpr):
    n = tl.arange(0, count)
    key = tl.load(keys + tl.program_id(0)).to(tl.uint64, bitcast=True)
    bits = noise.random_bits(key, n)
    tl.store(bits_out + tl.program_id(0) * count + n, bits.to(tl.int64, bitcast=True))
    tl.store(values_out + tl.program_id(0) * count + n, noise.gumbel(key, n))


def test_noise_has_the_same_bits() -> None:
    keys = torch.from_numpy(np.array(KEYS, np.uint64).view(np.int64)).to(DEVICE)
    bits = torch.empty((len(KEYS), 1024), dtype=torch.int64, device=DEVICE)
    values = torch.empty((len(KEYS), 1024), device=DEVICE)
    kernel: Any = _noise
    kernel[(len(KEYS),)](keys, bits, values, 1024)
    found = bits.cpu().numpy().view(np.uint64)
    assert all(
        int(found[row, token]) == mix(key + (token + 1) * GOLDEN)
        for row, key in enumerate(KEYS)
        for token in (0, 1, 77, 1023)
    )
    wanted = gumbel(KEYS, torch.arange(1024))
    assert torch.allclose(values.cpu(), wanted, rtol=2e-6, atol=2e-6)


def logits(rows: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(size=(rows, vocab)) * 3
    return torch.from_numpy(drawn.astype(np.float32).round(2)).to(DEVICE)  # with ties


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_the_tokens_of_the_reference(filters: Filters | None) -> None:
    given = logits(3)
    given[2] = 1.0  # all alike
    choice = Choice(3, filters, 12345678901234567890, 5)
    assert choose(given, RowDraw.of(choice, 0)).tolist() == reference(given.cpu(), choice)


def test_a_large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, tokens and sums over as many as any model has."""
    if not ON_GPU:
        monkeypatch.setattr(choose_module, "TILE", 2**15)  # a program takes as long for a wide tile
    given = logits(3, seed=1, vocab=LARGEST)
    kinds = (None, Filters(1.0), Filters(1.5, top_k=200_000, top_p=0.99))
    choices = [Choice(1, filters, 2**63 + 11, 4) for filters in kinds]
    asked = [one for row, choice in enumerate(choices) for one in RowDraw.of(choice, row)]
    wanted = [reference(given[row : row + 1].cpu(), choice)[0] for row, choice in enumerate(choices)]
    assert choose(given, asked).tolist() == wanted


def test_filters_keep_what_the_reference_keeps() -> None:
    """Drawn again and again from few tokens, each that is kept comes, and no other."""
    row = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.5, -torch.inf, 2.0]], device=DEVICE)
    for filters in (
        Filters(1.0, top_p=0.9),
        Filters(1.0, top_k=3),
        Filters(1.0, 0.1),
        Filters(1.0, 0.1, 5, 0.8),
    ):
        choice = Choice(12, filters, 99, 0)
        rows = row.expand(12, -1)
        asked = [
            RowDraw(0, *(getattr(one, n) for n in ("temperature", "min_p", "top_k", "top_p", "key")))
            for one in RowDraw.of(choice, 0)
        ]
        assert choose(row, asked).tolist() == reference(rows.cpu(), choice), filters


def test_a_row_is_chosen_from_alone_or_beside_others() -> None:
    """Rows with other filters beside it, and the reasons why a row has no token."""
    given = logits(6)
    given[3, 7], given[4, 9], given[5] = torch.nan, torch.inf, -torch.inf
    asked = [one for n, filters in enumerate(FILTERS) for one in RowDraw.of(Choice(1, filters, 7, n), n)]
    together = choose(given, asked).tolist()
    assert together[3:] == [-1, -2, -3]
    assert together == [choose(given, [one]).tolist()[0] for one in asked]
    draws = Draws.of(asked, VOCAB)
    sure = Choosing(given, draws, upload(draws.arrays, given.device)).confidences()[: draws.count]
    assert sure[3:].tolist() == [0.0, 0.0, 0.0]
    assert sure[0].item() == pytest.approx(confidence(given[:1].cpu()), rel=1e-5)


def test_columns_that_stand_for_tokens_and_columns_left_out() -> None:
    given, ids = logits(2)[:, :50].contiguous(), torch.arange(50, device=DEVICE) * 3 + 5
    choice = Choice(2, Filters(1.0), 3, 8)
    draws = Draws.of(RowDraw.of(choice, 0), 40)
    choosing = Choosing(given, draws, upload(draws.arrays, given.device), ids)
    first = choosing.columns()
    assert first.tolist() == reference(given[:, :40].cpu(), choice, ids[:40].cpu())
    again = given.clone()
    again[torch.arange(2), first.long()] = -torch.inf
    noise_of = torch.stack([gumbel([key], ids[:40].cpu())[0] for key in _keys(choice)])
    scores = (given[:, :40].cpu() - given[:, :40].cpu().amax(1, keepdim=True)) + noise_of
    scores[torch.arange(2), first.cpu().long()] = -torch.inf
    assert choosing.columns(first).tolist() == scores.argmax(1).tolist()


def _keys(choice: Choice) -> list[int]:
    return [one.key for one in RowDraw.of(choice, 0)]


def test_spans_with_edits_skips_and_looks() -> None:
    backend = GpuBackend(DEVICE, cache_dtype="float32")
    width = 40
    forward = backend.compile(lambda ops, _: ops.select_logit_rows(ops.input(width)), (), 16)
    given = logits(9)[:, :width].contiguous()
    spans = [Span([0] * rows, 0, (), logit_rows) for rows, logit_rows in ((3, 2), (2, 0), (4, 4))]
    best = int(given[6].argmax())
    edits = [(), (Bar(np.array([best])),), ()]
    choices = [Choice(1, Filters(1.0), 3, 5, skip=1), None, Choice(3, None, edits=edits)]
    stepped = forward.step(spans, choices, given, looks=True)
    alone = reference(given[2:3].cpu(), Choice(1, Filters(1.0), 3, 5))
    without = given[6].clone()
    without[best] = -torch.inf
    wanted = [int(given[5].argmax()), int(without.argmax()), int(given[7].argmax())]
    assert [list(tokens) for tokens in stepped.tokens] == [alone, [], wanted]
    assert stepped.rows is not None
    assert stepped.rows[2].ranked(1, best, 1)[0].rank == 1
    assert np.array_equal(forward(spans, given).logits, given[[1, 2, 5, 6, 7, 8]].cpu().numpy())


def test_planted_fault_noise_of_another_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "folded", lambda parts, key: folded((parts[0] + 1,), key))
    with pytest.raises(AssertionError):
        test_the_tokens_of_the_reference(Filters(1.0))
