"""What each row goes through by itself: norms, gates, embeddings, and mixtures of experts; against float64,
and bit for bit in any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider.ops.cuda import experts as experts_module
from outrider.ops.cuda.embedding import look_up
from outrider.ops.cuda.experts import experts
from outrider.ops.cuda.formats import GPU_FORMATS
from outrider.ops.cuda.gates import gate_by
from outrider.ops.cuda.matrix import GpuMatrix, pack_matrix
from outrider.ops.cuda.norms import norm
from outrider.ops.shapes import Routing
from tests.ops import oracle
from tests.ops.cuda import DEVICE, ON_GPU
from tests.ops.cuda.test_linear import numbers, packed, stored

COUNT, HIDDEN, INNER, WIDTH = (32, 512, 1024, 512) if ON_GPU else (5, 32, 20, 24)


def array(x: Tensor) -> Any:
    return x.cpu().double().numpy()


@pytest.mark.parametrize("heads", [1, 3])
def test_norms_by_definition(heads: int) -> None:
    x, weight, residual = numbers(4, 60), numbers(60, seed=1), numbers(4, 60, seed=2)
    parts = (array(x).reshape(4, heads, -1), array(weight).reshape(heads, -1))
    wanted = oracle.rms_norm(*parts, 1e-5).reshape(4, -1)
    np.testing.assert_allclose(array(norm(x, weight, 1e-5, torch.float32, heads=heads)), wanted, rtol=2e-6)
    added = norm(x, weight, 1e-5, torch.bfloat16, residual, heads)
    assert added.dtype == torch.float32
    np.testing.assert_allclose(array(added), wanted + array(residual), atol=3e-6)
    assert torch.equal(norm(x[2:3], weight, 1e-5, torch.float32), norm(x, weight, 1e-5, torch.float32)[2:3])


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "swiglu_clamped"])
def test_gates_by_definition(activation: Any) -> None:
    gate, up = 4 * numbers(3, 50), 8 * numbers(3, 50, seed=1)
    wanted = oracle.gated(activation, array(gate), array(up))
    np.testing.assert_allclose(
        array(gate_by(gate, up, activation, torch.float32)), wanted, atol=3e-6, rtol=3e-6
    )


def test_a_gate_for_all_columns_and_none() -> None:
    x, gate = numbers(3, 10), numbers(3, 1, seed=1)
    wanted = array(x) / (1 + np.exp(-array(gate)))
    np.testing.assert_allclose(array(gate_by(gate, x, "sigmoid", torch.float32)), wanted, rtol=1e-5)
    np.testing.assert_allclose(
        array(gate_by(gate, x, None, torch.float32)), array(x) * array(gate), rtol=1e-6
    )


@pytest.mark.parametrize("format", GPU_FORMATS)
def test_a_table_of_tokens_is_read_as_it_is_stored(format: str) -> None:
    weight = stored(6, 256, format)
    ids = torch.tensor([5, 0, 5], dtype=torch.int32, device=DEVICE)
    wanted = weight.dequantize()[[5, 0, 5]] * 2
    found = look_up(ids, packed(weight), 2.0).cpu().numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6 * np.abs(wanted).max())


def stack(outputs: int, inputs: int, seed: int, bias: Tensor | None = None) -> tuple[GpuMatrix, Any]:
    """Weights of all experts, and what they are worth: [count, outputs, inputs]."""
    made = [stored(outputs, inputs, "F32", seed + n) for n in range(COUNT)]
    matrix = pack_matrix(made, torch.device(DEVICE), bias, experts=COUNT)
    return matrix, np.stack([one.dequantize() for one in made]).astype(np.float64)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_experts_by_definition_and_bit_for_bit(scoring: Any) -> None:
    (gates, g), (ups, u) = (stack(INNER, HIDDEN, seed) for seed in (0, 100))
    down_bias = numbers(COUNT * WIDTH, seed=9)
    downs, d = stack(WIDTH, INNER, 200, down_bias)
    routing = Routing(COUNT, 2, normalised=scoring == "softmax", scoring=scoring, factor=1.5)
    bias = numbers(COUNT, seed=7) if scoring == "sigmoid" else None
    rows = 21
    x, scores, before = numbers(rows, HIDDEN), numbers(rows, COUNT, seed=3), numbers(rows, WIDTH, seed=4)
    scores[0, 1:3] = 9.0  # a tie goes to the lower number

    def run(chosen: Any, padding: int = 0) -> Tensor:
        positions = torch.zeros(len(chosen), dtype=torch.int32, device=DEVICE)
        positions[len(chosen) - padding :] = -1
        parts = (x[chosen], scores[chosen])
        return experts(*parts, (gates, ups, downs), routing, "silu", positions, before[chosen], 0.5, bias)

    whole = run([*range(rows)])
    wanted = oracle.Experts(
        g, u, d, 2, "silu", scoring, routing.normalised, 1.5, None if bias is None else array(bias)
    )
    plain = wanted(array(x), array(scores))
    with_bias = plain + _of_biases(array(scores), routing, array(down_bias).reshape(COUNT, -1), bias)
    np.testing.assert_allclose(array(whole), 0.5 * with_bias + array(before), rtol=1e-4, atol=1e-4)
    for chosen in ([4], [20, 4, 11], [*range(17, -1, -1)]):
        assert torch.equal(run(chosen), whole[chosen])
    assert torch.equal(run([3, 5, 0, 0], padding=2)[:2], whole[[3, 5]])


def _of_biases(scores: Any, routing: Routing, biases: Any, bias: Tensor | None) -> Any:
    """What the biases of the last matrices add."""
    softmax = routing.scoring == "softmax"
    weights = oracle.softmax(scores) if softmax else 1 / (1 + np.exp(-scores))
    order = (scores if softmax else weights) + (0 if bias is None else array(bias))
    out = np.zeros((len(scores), biases.shape[1]))
    for row, at in enumerate(np.argsort(-order, axis=1, kind="stable")[:, : routing.chosen]):
        total = weights[row, at].sum() if routing.normalised else 1
        out[row] = sum(routing.factor * weights[row, e] / total * biases[e] for e in at)
    return out


def test_planted_fault_experts_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that go to an expert beside the one of their score are seen by the test above."""
    real = experts_module._mixture

    def faulty(*arguments: Any) -> Any:
        mixture, weights = real(*arguments)
        return mixture, weights.flip(0)

    monkeypatch.setattr(experts_module, "_mixture", faulty)
    with pytest.raises(AssertionError):
        test_experts_by_definition_and_bit_for_bit("softmax")
