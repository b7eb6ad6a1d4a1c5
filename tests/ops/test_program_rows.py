"""Operations of native programs on single rows: against their definition, and bit for bit in any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops import oracle
from tests.ops.oracle import Array, relative_error
from tests.ops.programs import (
    INSTRUCTION_SETS,
    chain,
    coarse_matrix,
    matrix,
    numbers,
    program,
    row_depends_on_others,
)

every_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
ROWS = 40


@every_set
@pytest.mark.parametrize("width", [3, 16, 96, 577])
@pytest.mark.parametrize("residual", [False, True])
def test_norm(width: int, residual: bool, instruction_set: str) -> None:
    x, weight = numbers(ROWS, width, scale=5), numbers(width, seed=1)
    norm = chain(width, lambda p, x: p.norm(x, weight, 0.1, x if residual else None), instruction_set, 2)
    expected = oracle.rms_norm(x, weight, 0.1) + (x if residual else 0)
    assert relative_error(norm(x), expected) < 1e-5
    assert row_depends_on_others(norm, x) == []


@every_set
@pytest.mark.parametrize(("heads", "dim"), [(1, 96), (6, 16), (3, 20), (577, 1)])
def test_norm_of_heads(heads: int, dim: int, instruction_set: str) -> None:
    """Each by itself, with its own part of the weight."""
    x, weight = numbers(ROWS, heads * dim, scale=5), numbers(heads * dim, seed=1)
    norm = chain(heads * dim, lambda p, x: p.norm_heads(x, weight, heads, 0.1), instruction_set, 2)
    by_head = oracle.rms_norm(x.reshape(ROWS, heads, dim), weight.reshape(heads, dim), 0.1)
    assert relative_error(norm(x), by_head.reshape(ROWS, -1)) < 1e-5
    assert row_depends_on_others(norm, x) == []


@every_set
def test_norm_goes_into_the_conversion_of_a_linear_layer_and_changes_nothing(instruction_set: str) -> None:
    x, weight = numbers(7, 80), numbers(80, seed=1)
    for layer in (matrix(numbers(48, 80, seed=2)), coarse_matrix(numbers(48, 80, seed=2))[0]):

        def record(p: Any, x: int, layer: Any = layer) -> int:
            return int(p.linear(p.norm(x, weight, 1e-5), [layer]))

        def apart(p: Any, x: int, layer: Any = layer) -> int:
            return int(p.linear(x, [layer]))

        normed = chain(80, lambda p, x: p.norm(x, weight, 1e-5), instruction_set)(x)
        fused = chain(80, record, instruction_set)(x)
        assert np.array_equal(fused, chain(80, apart, instruction_set)(normed))


def test_a_norm_with_a_residual_is_read_by_a_linear_layer_and_a_later_residual() -> None:
    """Gemma's block: its floats stay while other operations use the memory of what is no longer needed."""
    x, a, b = numbers(9, 64), numbers(64, seed=1), numbers(64, seed=2)
    up, down = numbers(96, 64, seed=3, scale=0.1), numbers(64, 96, seed=4, scale=0.1)

    def record(p: Any, x: int) -> int:
        middle = p.norm(x, a, 1e-5, x)
        inner = p.linear(p.norm(middle, b, 1e-5), [matrix(up)])
        return int(p.norm(p.linear(inner, [matrix(down)]), a, 1e-5, middle))

    middle = x + oracle.rms_norm(x, a, 1e-5)
    written = oracle.rms_norm(middle, b, 1e-5) @ up.T.astype(np.float64) @ down.T
    assert relative_error(chain(64, record)(x), middle + oracle.rms_norm(written, a, 1e-5)) < 1e-5


@every_set
@pytest.mark.parametrize("scale", [1.0, 0.22, -3.0])
@pytest.mark.parametrize("residual", [False, True])
def test_linear(scale: float, residual: bool, instruction_set: str) -> None:
    """A bias is scaled too; residual and scale are in the last store of every panel."""
    weight, bias = numbers(53, 53, seed=1), numbers(53, seed=2)
    layer = matrix(weight, bias)
    linear = chain(53, lambda p, x: p.linear(x, [layer], x if residual else None, scale), instruction_set, 2)
    x = numbers(ROWS, 53)
    expected = np.float32(scale) * (x.astype(np.float64) @ weight.T + bias) + (x if residual else 0)
    assert relative_error(linear(x), expected) < 1e-5
    assert row_depends_on_others(linear, x) == []


@every_set
@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_activations(activation: str, instruction_set: str) -> None:
    """From far below to far above zero, near zero, and at it: relative to each value itself."""
    values = np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-30, 1e6, 300), [0]])
    x = np.ones((2 * len(values), 2), np.float32)
    x[:, 0] = np.concatenate([values, -values])
    gate, one = matrix(np.array([[1, 0]])), matrix(np.array([[0, 1]]))
    got = chain(2, lambda p, x: p.gated(x, [gate], [one], activation), instruction_set)(x)
    expected = oracle.gated(activation, x[:, :1].astype(np.float64), np.ones(1))
    # What is next to nothing beside its argument counts by its size.
    assert float((np.abs(got - expected) / (np.abs(expected) + 1e-9)).max()) < 1e-5


@every_set
@pytest.mark.parametrize("activation", [*oracle.ACTIVATIONS, "swiglu_clamped"])
@pytest.mark.parametrize("coarse", ["neither", "gate", "up"])
def test_gated(activation: str, coarse: str, instruction_set: str) -> None:
    """gate and up may have formats that read x in different forms."""
    gate, up = numbers(70, 96, seed=1, scale=0.2), numbers(70, 96, seed=2, scale=0.2)
    gates, ups = matrix(gate), matrix(up)
    if coarse == "gate":
        gates, _ = coarse_matrix(gate)
    if coarse == "up":
        ups, _ = coarse_matrix(up)
    x = numbers(ROWS, 96)

    def alone(layer: Any) -> Array:
        return chain(96, lambda p, x: p.linear(x, [layer]), instruction_set)(x).astype(np.float64)

    gated = chain(96, lambda p, x: p.gated(x, [gates], [ups], activation), instruction_set, 2)
    assert relative_error(gated(x), oracle.gated(activation, alone(gates), alone(ups))) < 1e-6
    assert row_depends_on_others(gated, x) == []


@every_set
def test_gates_of_several_formats_side_by_side(instruction_set: str) -> None:
    x = numbers(5, 96)
    gates = [matrix(numbers(40, 96, seed=1)), coarse_matrix(numbers(7, 96, seed=2))[0]]
    ups = [coarse_matrix(numbers(40, 96, seed=3))[0], coarse_matrix(numbers(7, 96, seed=4))[0]]
    together = chain(96, lambda p, x: p.gated(x, gates, ups, "silu"), instruction_set, 2)(x)
    for pair, columns in ((0, slice(0, 40)), (1, slice(40, 47))):

        def alone(p: Any, x: int, pair: int = pair) -> int:
            return int(p.gated(x, [gates[pair]], [ups[pair]], "silu"))

        assert np.array_equal(together[:, columns], chain(96, alone, instruction_set)(x))


@every_set
def test_embed(instruction_set: str) -> None:
    values = numbers(43, 80)
    for scale in (1.0, 8.9):
        p = program(instruction_set, 2)
        p.output(p.embed(matrix(values), scale))
        got = p.run([42, 0, 17, 17], [0], [4], [[]], [0])
        assert np.array_equal(got, values[[42, 0, 17, 17]] * np.float32(scale))


@every_set
@pytest.mark.parametrize("activation", [None, "silu", "sigmoid"])
@pytest.mark.parametrize("columns", [1, 70], ids=["one gate", "a gate a column"])
def test_multiply(activation: str | None, columns: int, instruction_set: str) -> None:
    """A gate of one column holds for all of them."""
    x, weight, layer = (
        numbers(ROWS, 70),
        matrix(numbers(columns, 70, seed=1)),
        matrix(numbers(70, 70, seed=2)),
    )

    def alone(layer: Any) -> Array:
        return chain(70, lambda p, x: p.linear(x, [layer]), instruction_set)(x).astype(np.float64)

    def gated(p: Any, x: int) -> int:
        return int(p.multiply(p.linear(x, [layer]), p.linear(x, [weight]), activation))

    gate = alone(weight)
    sigmoid = 1 / (1 + np.exp(-gate))
    expected = alone(layer) * {None: gate, "silu": gate * sigmoid, "sigmoid": sigmoid}[activation]
    product = chain(70, gated, instruction_set, 2)
    assert relative_error(product(x), expected) < 1e-6
    assert row_depends_on_others(product, x) == []


@every_set
@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_soft_cap(cap: float, instruction_set: str) -> None:
    """Values of every size are right relative to each, so that small ones stay what they are."""
    x = np.concatenate([np.geomspace(1e-20, 1e5, 5000), [0, 1e38, np.inf]])
    x = np.concatenate([x, -x]).astype(np.float32).reshape(2, -1)
    capped = chain(x.shape[1], lambda p, x: p.soft_cap(x, cap), instruction_set, 2)
    expected = oracle.soft_cap(x, cap)
    assert float((np.abs(capped(x) - expected) / (np.abs(expected) + 1e-30)).max()) < 1e-6
    assert row_depends_on_others(capped, x) == []


def test_soft_cap_of_what_others_read_too() -> None:
    """In place where nobody else does, and apart where somebody does: the same, and the others see x."""
    x, weight = numbers(6, 40), matrix(numbers(50, 40, seed=1))
    plain = chain(40, lambda p, x: p.linear(x, [weight]))(x)
    assert np.array_equal(chain(40, lambda p, x: p.soft_cap(x, 2.0))(x), capped_apart(x))
    in_place = chain(40, lambda p, x: p.soft_cap(p.linear(x, [weight]), 2.0))(x)
    assert relative_error(in_place, oracle.soft_cap(plain, 2.0)) < 1e-6

    p = program()
    value = p.linear(p.input(40), [weight])
    capped = p.soft_cap(value, 2.0)
    p.keep(value)
    p.output(capped)
    kept = np.empty((6, 50), np.float32)
    assert np.array_equal(p.run([0] * 6, [0], [6], [[]], [0], x, kept), in_place)
    assert np.array_equal(kept, plain)


def capped_apart(x: Array) -> Array:
    """What the kernel itself makes of x where it is read twice."""
    p = program()
    value = p.input(40)
    p.keep(value)
    p.output(p.soft_cap(value, 2.0))
    kept = np.empty_like(x)
    y = p.run([0] * len(x), [0], [len(x)], [[]], [0], x, kept)
    assert np.array_equal(kept, x)
    return np.asarray(y)


def test_rows_of_logits() -> None:
    """The last rows of each span, in order; what follows works on those alone."""
    x, weight = numbers(7, 32), matrix(numbers(5, 32, seed=1))
    p = program()
    value = p.input(32)
    p.output(p.linear(p.select_logit_rows(value), [weight]))
    whole = chain(32, lambda p, x: p.linear(x, [weight]))(x)
    assert np.array_equal(p.run([0] * 7, [0, 3], [3, 4], [[], []], [2, 1], x), whole[[1, 2, 6]])
    assert p.run([0] * 7, [0, 3], [3, 4], [[], []], [0, 0], x).shape == (0, 5)


def test_what_is_kept_is_beside_each_other_and_as_it_is_without() -> None:
    x, weight, norm = numbers(7, 32), matrix(numbers(32, 32, seed=1)), numbers(32, seed=2)

    def recorded(keep: bool) -> tuple[Any, Array | None]:
        p = program(count=2)
        value = p.input(32)
        for _ in range(3):
            normed = p.norm(value, norm, 1e-5)
            if keep:
                p.keep(value), p.keep(normed)
            value = p.linear(normed, [weight], value)
        p.output(value)
        return p, np.empty((7, p.kept_width), np.float32) if keep else None

    (p, kept), (plain, _) = recorded(True), recorded(False)
    run = [[0] * 7, [0], [7], [[]], [0], x]
    assert np.array_equal(p.run(*run, kept), plain.run(*run))
    assert kept is not None
    parts = np.split(kept, 6, axis=1)
    assert np.array_equal(parts[0], x)
    for before, normed in zip(parts[::2], parts[1::2], strict=True):
        assert relative_error(normed, oracle.rms_norm(before, norm, 1e-5)) < 1e-5


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 140),
    count=st.integers(1, 3),
    instruction_set=st.sampled_from(INSTRUCTION_SETS),
)
def test_a_feed_forward_of_any_shape(
    rows: int, outputs: int, inputs: int, count: int, instruction_set: str
) -> None:
    gate, up = numbers(outputs, inputs, seed=1, scale=0.1), numbers(outputs, inputs, seed=2, scale=0.1)
    down, norm = numbers(inputs, outputs, seed=3), numbers(inputs, seed=4)

    def record(p: Any, x: int) -> int:
        inner = p.gated(p.norm(x, norm, 1e-5), [matrix(gate)], [matrix(up)], "gelu_tanh")
        return int(p.linear(inner, [matrix(down)], x, 0.5))

    x = numbers(rows, inputs, seed=5)
    layer = chain(inputs, record, instruction_set, count)
    normed = oracle.rms_norm(x, norm, 1e-5)
    inner = oracle.gated("gelu_tanh", normed @ gate.T.astype(np.float64), normed @ up.T.astype(np.float64))
    assert relative_error(layer(x), x + 0.5 * (inner @ down.T.astype(np.float64))) < 1e-5
    assert np.array_equal(layer(x[-1:]), layer(x)[-1:])
