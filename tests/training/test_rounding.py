"""Weights as they will be stored."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from outrider.models.head_checkpoint import four_bits
from outrider.training.rounding import in_4_bits, rounded


def test_weights_are_stored_as_they_were_trained() -> None:
    matrix = torch.randn(24, 96) * torch.rand(24, 1)
    matrix[3] = 0
    found = in_4_bits(matrix)
    assert torch.equal(found, torch.from_numpy(four_bits(found.numpy()).dequantize()))
    assert 0.05 < (found - matrix).norm() / matrix.norm() < 0.15


def test_weights_come_back_after_an_error() -> None:
    net = nn.Linear(3, 2)
    exact = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    with suppress(KeyboardInterrupt), rounded(net, torch.zeros_like):
        assert not net.weight.any()
        raise KeyboardInterrupt
    assert all(torch.equal(value, exact[name]) for name, value in net.named_parameters())
