"""Rotary frequencies are those of transformers, for every kind and over random settings."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from outrider.errors import ModelError
from outrider.models.rope import KINDS, NEEDED, RopeSettings, check_rope, rotary

ROUNDS = 60
NEAR = {"llama3": 2e-6}
"""Its smoothing takes the difference of numbers that are near to each other, where a rounding shows."""


def drawn(kind: str, draw: random.Random, dims: int, original: int) -> dict[str, Any]:
    """Settings of a kind, with those that may be missing now and then."""
    parameters: dict[str, Any] = {"rope_type": kind, "rope_theta": 10 ** draw.uniform(2.5, 7)}
    factor = draw.choice((1.0, 2.0, draw.uniform(1, 40)))
    maybe = {
        "llama3": {},
        "yarn": {
            "attention_factor": draw.uniform(0.5, 2),
            "beta_fast": draw.choice((16, 32.0, 64)),
            "beta_slow": draw.choice((1, 2.5)),
            "truncate": draw.choice((True, False)),
        },
        "proportional": {"factor": factor},
        "longrope": {"factor": factor, "attention_factor": draw.uniform(0.5, 2)},
    }
    parameters |= {name: value for name, value in maybe.get(kind, {}).items() if draw.random() < 0.5}
    if kind in ("linear", "llama3", "yarn"):
        parameters["factor"] = factor
    if kind == "llama3":
        parameters |= {"low_freq_factor": draw.uniform(0.5, 2), "high_freq_factor": draw.uniform(3, 8)}
    if kind == "yarn" and draw.random() < 0.5:
        parameters |= {"mscale": draw.uniform(0.5, 1.5), "mscale_all_dim": draw.uniform(0.5, 1.5)}
    if kind == "longrope":
        for name in ("short_factor", "long_factor"):
            parameters[name] = [draw.uniform(0.9, 40) for _ in range(dims // 2)]
    if kind in ("llama3", "yarn", "longrope"):
        parameters["original_max_position_embeddings"] = original
    return parameters


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "divisors"])
def test_every_kind_equals_transformers(kind: str, share: float) -> None:
    draw = random.Random(f"{kind} {share}")
    for _ in range(ROUNDS):
        head_dim, original = draw.choice((8, 20, 64, 128)), 2 ** draw.randint(6, 13)
        most = int(original * draw.choice((1, 4, 7.5)))
        dims = int(head_dim * share)
        parameters = drawn(kind, draw, dims, original)
        if kind == "proportional":  # which pairs all dimensions, and turns that share of the pairs
            dims, parameters["partial_rotary_factor"] = head_dim, share
        config = LlamaConfig(
            head_dim=head_dim,
            max_position_embeddings=most,
            rope_parameters={**parameters, "partial_rotary_factor": share},
        )
        positions = draw.choice((original, original + 1))
        if kind == "default":
            config.rope_parameters["rope_theta"] = parameters["rope_theta"]
            inv_freq = 1 / parameters["rope_theta"] ** (np.arange(0, dims, 2) / dims)
            factor = 1.0
            if share == 1:
                inv_freq = LlamaRotaryEmbedding(config).inv_freq.numpy()
        else:
            found, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=positions)
            inv_freq = found.numpy()
        settings = RopeSettings(parameters, dims, parameters["rope_theta"], most, positions)
        rope = rotary(settings, "x")
        np.testing.assert_allclose(
            rope.inv_freq, inv_freq, rtol=NEAR.get(kind, 1e-6), err_msg=str(parameters)
        )
        assert rope.factor == pytest.approx(factor, rel=1e-6)


def test_divisors_are_applied_one_by_one() -> None:
    draw = random.Random(0)
    divisors = [draw.uniform(1, 40) for _ in range(32)]
    plain = rotary(RopeSettings({}, 64, 5e5, 8192, 8192), "x")
    divided = rotary(RopeSettings({"rope_type": "divisors", "divisors": divisors}, 64, 5e5, 8192, 8192), "x")
    np.testing.assert_allclose(divided.inv_freq, np.array(plain.inv_freq) / divisors, rtol=1e-6)


@pytest.mark.parametrize("kind", NEEDED)
def test_what_a_kind_needs_and_what_it_does_not_use(kind: str) -> None:
    draw = random.Random(kind)
    parameters = drawn(kind, draw, 8, 64)
    check_rope(parameters, "x")
    for name in NEEDED[kind]:
        with pytest.raises(ModelError, match=f"{kind}' needs {name}, which is missing"):
            check_rope({key: value for key, value in parameters.items() if key != name}, "x")
        for bad in (0, -1.0, "2", True, float("nan"), [0.0]):
            with pytest.raises(ModelError, match=f"{name} = "):
                check_rope(parameters | {name: bad}, "x")
    with pytest.raises(ModelError, match=f"'{kind}' does not use 'alpha' = 3"):
        check_rope(parameters | {"alpha": 3}, "x")
