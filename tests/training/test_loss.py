"""The loss and the chance to agree, against what they are by definition."""

from __future__ import annotations

import pytest
import torch

from outrider.ops.noise import folded
from outrider.ops.torch.noise import gumbel
from outrider.training.loss import agreement, distance


def test_the_loss_is_cross_entropy() -> None:
    """Weighted by rows, with its gradient, and the overlap beside it."""
    logits = torch.randn(7, 30, dtype=torch.float64).float().requires_grad_()
    probs, weight = torch.randn(7, 30).softmax(-1), torch.rand(7)
    loss, overlap = distance(logits, probs, weight)
    plain = -(probs * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(loss, (weight * plain).sum())
    torch.testing.assert_close(overlap, torch.minimum(probs, logits.detach().softmax(-1)).sum(-1))
    (slope,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad((weight * plain).sum(), logits)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("said", [12, 9])
def test_agreement_is_that_of_tokens_drawn_with_the_same_noise(said: int) -> None:
    """The engine's own noise, over many positions; the target may say more than the draft can."""
    torch.manual_seed(said)
    p, q = (2 * torch.randn(12)).softmax(-1), (2 * torch.randn(said)).softmax(-1)
    noise = gumbel([folded((position,), 3) for position in range(40_000)], torch.arange(12))
    same = (p.log() + noise).argmax(-1) == (q.log() + noise[:, :said]).argmax(-1)
    assert float(agreement(p[None, :said], q[None])) == pytest.approx(float(same.float().mean()), abs=0.01)


def test_agreement_has_bounds() -> None:
    """1 for equals, 0 where nothing is shared, and at most what the best coupling there is would reach."""
    p, q = torch.randn(50, 40).mul(2).softmax(-1), torch.randn(50, 40).mul(2).softmax(-1)
    torch.testing.assert_close(agreement(p, p), torch.ones(50))
    overlap = torch.minimum(p, q).sum(-1)
    found = agreement(p, q)
    assert (found <= overlap + 1e-6).all()
    assert (found >= overlap / (2 - overlap) - 1e-6).all()
    part = agreement(p[:, :30], q[:, :30])  # what is left out is taken never to agree
    assert (part < found).all()
    assert (found - part <= (torch.maximum(p, q)[:, 30:]).sum(-1)).all()
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(agreement(one, other)) == 0
    assert float(agreement(one, one)) == 1
