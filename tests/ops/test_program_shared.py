"""Attention to K and V that another layer has written, V that is K, normed V, and the operations beside
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ops.programs import INSTRUCTION_SETS, native, numbers, program

HEADS, KV_HEADS, DIM, ROWS = 4, 2, 16, 11
Q, KV = HEADS * DIM, KV_HEADS * DIM
LAYER: dict[str, Any] = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": DIM, "scale": 0.3}
TABLE = [3, 0, 2]
every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
Record = Callable[[Any, int, Any, Any], int]


def cache() -> tuple[Any, Any]:
    return np.zeros((4, KV_HEADS, DIM, 4), np.float32), np.zeros((4, KV_HEADS, 4, DIM), np.float32)


def run(x: Any, record: Record, instruction_set: str, caches: tuple[Any, Any] | None = None) -> Any:
    keys, values = caches or cache()
    p = program(instruction_set)
    p.output(record(p, p.input(x.shape[1]), keys, values))
    return p.run([0] * len(x), [0], [len(x)], [[TABLE]], [len(x)], x)


def own(p: Any, x: int, keys: Any, values: Any, **others: Any) -> int:
    return int(p.attend(x, keys, values, **LAYER, **others))


@every_set
def test_values_that_are_keys(instruction_set: str) -> None:
    """V is K before its norm and its rope."""
    qk, norm = numbers(ROWS, Q + KV, seed=1), numbers(DIM, seed=2)

    def layer(kv: str) -> Record:
        return lambda p, x, keys, values: own(
            p, x, keys, values, kv=kv, k_norm=norm, rope=p.rope(numbers(DIM // 2, seed=3))
        )

    whole = np.concatenate([qk, qk[:, Q:]], axis=1)
    assert np.array_equal(run(qk, layer("keys"), instruction_set), run(whole, layer("own"), instruction_set))


@every_set
def test_values_that_are_normed(instruction_set: str) -> None:
    qkv, weight = numbers(ROWS, Q + 2 * KV, seed=1), numbers(DIM, seed=2)
    v = qkv[:, Q + KV :].reshape(ROWS, KV_HEADS, DIM)
    normed = v / np.sqrt((v**2).mean(axis=-1, keepdims=True) + 1e-6) * weight
    before = np.concatenate([qkv[:, : Q + KV], normed.reshape(ROWS, KV)], axis=1).astype(np.float32)
    got = run(qkv, lambda p, x, k, v: own(p, x, k, v, v_norm=weight, norm_eps=1e-6), instruction_set)
    np.testing.assert_allclose(got, run(before, own, instruction_set), rtol=1e-4, atol=1e-5)


@every_set
def test_keys_and_values_of_another_layer(instruction_set: str) -> None:
    """As if the layer had computed the same itself; it changes nothing of them."""
    x, others = numbers(ROWS, Q + 2 * KV, seed=1), numbers(ROWS, Q, seed=2)

    def shared(p: Any, x: int, keys: Any, values: Any) -> int:
        own(p, p.columns(x, 0, Q + 2 * KV), keys, values)
        return own(p, p.columns(x, Q + 2 * KV, Q), keys, values, kv="shared")

    caches, alone = cache(), cache()
    found = run(np.concatenate([x, others], axis=1), shared, instruction_set, caches)
    assert np.array_equal(found, run(np.concatenate([others, x[:, Q:]], axis=1), own, instruction_set, alone))
    for one, other in zip(caches, alone, strict=True):
        assert np.array_equal(one, other)


def test_a_path_of_a_tree_moves_once() -> None:
    """Though two layers read it, and a second move would take what has just been put there."""
    keys, values = cache()
    p = program()
    x = p.input(2 * Q + 2 * KV)
    own(p, p.columns(x, 0, Q + 2 * KV), keys, values)
    p.output(own(p, p.columns(x, Q + 2 * KV, Q), keys, values, kv="shared"))
    rows = numbers(ROWS, 2 * Q + 2 * KV, seed=1)
    p.run([0] * ROWS, [0], [ROWS], [[TABLE]], [ROWS], rows)
    position = [(TABLE[n // 4], n % 4) for n in range(ROWS)]
    wanted = [values[position[n][0], :, position[n][1]].copy() for n in (6, 8, 9)]
    p.move([TABLE], [6, 8, 9], [5, 6, 7])
    for n, value in zip((5, 6, 7), wanted, strict=True):
        assert np.array_equal(values[position[n][0], :, position[n][1]], value)


@every_set
def test_a_rope_that_is_ahead(instruction_set: str) -> None:
    """q of a row turns as that of the row behind it, whose K and V are not there yet."""
    turns = numbers(DIM // 2, seed=3)
    x = numbers(ROWS, Q + 2 * KV, seed=1)

    def layer(ahead: int) -> Record:
        def record(p: Any, x: int, keys: Any, values: Any) -> int:
            own(p, x, keys, values, rope=p.rope(turns))
            rope = p.rope(turns, 1.0, False, ahead)
            return own(p, p.columns(x, 0, Q), keys, values, kv="shared", rope=rope)

        return record

    caches = cache()
    ahead = run(x[:-1], layer(1), instruction_set, caches)[-1]
    q, position = x[-2, :Q].reshape(HEADS, DIM), ROWS - 1
    cos, sin = np.cos(position * turns), np.sin(position * turns)
    first, second = np.split(q, 2, axis=1)
    q = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)
    places = [(TABLE[n // 4], n % 4) for n in range(ROWS - 1)]
    keys = np.stack([caches[0][block, :, :, offset] for block, offset in places])
    values = np.stack([caches[1][block, :, offset] for block, offset in places])
    for head in range(HEADS):
        scores = keys[:, head // 2] @ q[head] * 0.3
        weights = np.exp(scores - scores.max())
        expected = weights @ values[:, head // 2] / weights.sum()
        np.testing.assert_allclose(ahead[head * DIM : (head + 1) * DIM], expected, rtol=1e-4, atol=1e-5)


@every_set
@pytest.mark.parametrize("width", [1, 15, 64])
def test_scale_and_columns(width: int, instruction_set: str) -> None:
    """Scaled in place, and beside what others read too."""
    x = numbers(5, width + 7, seed=1)

    def scaled(p: Any, x: int, keys: Any, values: Any) -> int:
        part = p.columns(x, 7, width)
        return int(p.multiply(p.scale(p.scale(part, 0.5), 3.0), part, "gelu_tanh"))

    p = program(instruction_set)
    p.output(scaled(p, p.input(width + 7), None, None))
    part = x[:, 7:].astype(np.float64)
    gelu = 0.5 * part * (1 + np.tanh(np.sqrt(2 / np.pi) * (part + 0.044715 * part**3)))
    got = p.run([0] * 5, [0], [5], [[]], [5], x)
    np.testing.assert_allclose(got, 1.5 * part * gelu, rtol=1e-4, atol=1e-5)


BAD: list[tuple[Callable[[Any, int], Any], str]] = [
    (lambda p, x: p.scale(x, np.nan), "factor = nan"),
    (lambda p, x: p.columns(x, -1, 2), "first = -1"),
    (lambda p, x: p.columns(x, 0, 0), "count = 0"),
    (lambda p, x: p.columns(x, 120, 9), "first = 120 and count = 9 .* 128 columns"),
    (lambda p, x: p.rope(np.ones(2, np.float32), ahead=-1), "ahead = -1"),
    (lambda p, x: own(p, x, *cache(), kv="lent"), "kv = 'lent' is not known; known are own, keys, shared"),
    (lambda p, x: own(p, x, *cache(), kv="keys"), "qkv has width 128; the heads imply 96"),
    (lambda p, x: own(p, x, *cache(), kv="shared"), "qkv has width 128; the heads imply 64"),
    (lambda p, x: own(p, x, *cache(), v_norm=np.ones(3, np.float32)), "v_norm has 3 values; head_dim = 16"),
    (
        lambda p, x: own(p, p.columns(x, 0, Q), *cache(), kv="shared", k_norm=np.ones(DIM, np.float32)),
        "k_norm and v_norm are of a layer whose K and V another one has written",
    ),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_what_cannot_be_recorded(record: Callable[[Any, int], Any], message: str) -> None:
    p = program()
    with pytest.raises(ValueError, match=message):
        record(p, p.input(128))


def test_a_draft_in_place_that_would_write() -> None:
    p = program()
    p.output(p.select_logit_rows(own(p, p.input(128), *cache())))
    with pytest.raises(ValueError, match="in_place = True: then writes K and V"):
        native.draft(
            p, p, [0], [0], [1], [[TABLE]], [None], None, Q, np.zeros((1, 128), np.float32), in_place=True
        )
