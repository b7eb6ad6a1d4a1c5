"""What a program is handed is checked before anything is read or written; errors name the argument."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from tests.ops.programs import BEST, coarse_matrix, matrix, native, numbers, program, threads

KEYS, VALUES = np.zeros((3, 2, 8, 16), np.float32), np.zeros((3, 2, 16, 8), np.float32)
SMALL, SQUARE = matrix(numbers(4, 32)), matrix(numbers(32, 32))
LAYER: dict[str, Any] = {"heads": 4, "kv_heads": 2, "head_dim": 8, "scale": 0.3, "window": 100}
X = np.zeros((2, 64), np.float32)

MADE: list[tuple[Callable[[], Any], str]] = [
    (lambda: native.Program(threads(1), "sse9"), "instruction_set = 'sse9'.*portable"),
    (lambda: native.Threads(0), "count = 0"),
    (lambda: program().input(2**31 - 1), "width = 2147483647"),
    (lambda: program().run([], [], [], [], []), "no output"),
    (lambda: program().embed(SMALL, nan), "scale = nan"),
    (lambda: program().rope(np.ones(0, np.float32)), "inv_freq is empty"),
    (lambda: program().rope(np.ones(2049, np.float32)), "inv_freq has 2049 values"),
    (lambda: program().rope(np.array([1, nan], np.float32)), "inv_freq = nan"),
    (lambda: program().rope(np.ones(4, np.float32), inf), "factor = inf"),
    (lambda: program().rope(np.ones(4)), "inv_freq is another type"),
]


@pytest.mark.parametrize(("make", "message"), MADE)
def test_programs_and_threads(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def attend(p: Any, x: int, keys: Any = KEYS, values: Any = VALUES, **changes: Any) -> Any:
    return p.attend(x, keys, values, **LAYER | changes)


def ones(count: int) -> Any:
    return np.ones(count, np.float32)


RECORDINGS: list[tuple[int, Callable[[Any, int], Any], str]] = [
    (32, lambda p, x: p.linear(x + 1, [SMALL]), "value 1 is not of this program"),
    (31, lambda p, x: p.linear(x, [SMALL]), "weight has 32 inputs; x has width 31"),
    (32, lambda p, x: p.linear(x, []), "weights is empty"),
    (32, lambda p, x: p.linear(x, [SMALL, None]), "weights holds None"),
    (32, lambda p, x: p.linear(x, [SMALL], x), "residual has width 32.* 4"),
    (32, lambda p, x: p.linear(x, [SMALL], None, inf), "scale = inf"),
    (32, lambda p, x: p.linear(p.select_logit_rows(x), [SQUARE], x), "residual and x .* same rows"),
    (31, lambda p, x: p.gated(x, [SMALL], [SMALL], "silu"), "gate has 32 inputs; x has width 31"),
    (32, lambda p, x: p.gated(x, [], [], "silu"), "gates is empty"),
    (32, lambda p, x: p.gated(x, [SMALL], [None], "silu"), "ups holds None"),
    (32, lambda p, x: p.gated(x, [SMALL], [SMALL] * 2, "silu"), "gates has 1 matrices, ups has 2"),
    (32, lambda p, x: p.gated(x, [SMALL], [SQUARE], "silu"), "gate has 4 outputs, up has 32.*agree"),
    (32, lambda p, x: p.gated(x, [SMALL], [SMALL], "relu"), "activation = 'relu'.* gelu_tanh"),
    (32, lambda p, x: p.norm(x, ones(31), 0.1), "weight has 31 values; x has width 32"),
    (32, lambda p, x: p.norm(x, ones(32), -1.0), "eps = -1"),
    (32, lambda p, x: p.norm(x, ones(32), nan), "eps = nan"),
    (32, lambda p, x: p.norm(x, ones(32), inf), "eps = inf"),
    (32, lambda p, x: p.norm(x, ones(32), 0.1, p.linear(x, [SMALL])), "residual has width 4.* 32"),
    (32, lambda p, x: p.norm(p.select_logit_rows(x), ones(32), 0.1, x), "residual and x .* same rows"),
    (32, lambda p, x: p.norm_heads(x, ones(8), 4, 0.1), "weight has 8 values; x has width 32"),
    (32, lambda p, x: p.norm_heads(x, ones(32), 5, 0.1), "heads = 5 cannot share a width of 32"),
    (32, lambda p, x: p.norm_heads(x, ones(32), 0, 0.1), "heads = 0"),
    (32, lambda p, x: p.norm_heads(x, ones(32), 4, nan), "eps = nan"),
    (32, lambda p, x: p.soft_cap(x, 0.0), "cap = 0.* above 0"),
    (32, lambda p, x: p.soft_cap(x, nan), "cap = nan"),
    (32, lambda p, x: p.multiply(x, p.linear(x, [SMALL])), "gate has width 4.* width 1 or 32"),
    (32, lambda p, x: p.multiply(x, p.select_logit_rows(x)), "gate has width 32.* the rows of x"),
    (32, lambda p, x: p.multiply(x, x, "gelu"), "activation = 'gelu' of a gate.* silu, sigmoid"),
    (64, lambda p, x: attend(p, x, KEYS[:, :, 1:].copy()), r"keys .*\(any, 2, 8, any\)"),
    (64, lambda p, x: attend(p, x, KEYS, KEYS), r"values has shape .*\(3, 2, 16, 8\)"),
    (64, lambda p, x: attend(p, x, KEYS, VALUES.astype(np.uint16)), "values is uint16.*float32"),
    (64, lambda p, x: attend(p, x, KEYS.astype(np.uint16), VALUES), "values is float32.*uint16"),
    (64, lambda p, x: attend(p, x, KEYS.astype(np.float16)), "keys is float16"),
    (63, lambda p, x: attend(p, x), "qkv has width 63.*64"),
    (64, lambda p, x: attend(p, p.select_logit_rows(x)), "qkv has only the rows"),
    (64, lambda p, x: attend(p, x, np.zeros((1, 3, 8, 1), np.float32), np.zeros((1, 3, 1, 8), np.float32),
                             kv_heads=3), "heads = 4 cannot share kv_heads = 3"),
    (64, lambda p, x: attend(p, x, np.zeros((1, 2, 7, 1), np.float32), np.zeros((1, 2, 1, 7), np.float32),
                             head_dim=7), "head_dim = 7"),
    (64, lambda p, x: attend(p, x, np.zeros((1, 2, 2**14, 1), np.float32),
                             np.zeros((1, 2, 1, 2**14), np.float32), head_dim=2**14), "head_dim = 16384"),
    (64, lambda p, x: attend(p, x, heads=2**20), "heads = 1048576"),
    (64, lambda p, x: attend(p, x, window=0), "window = 0"),
    (64, lambda p, x: attend(p, x, window=2**31 - 1), "window = 2147483647"),
    (64, lambda p, x: attend(p, x, scale=nan), "scale = nan"),
    (64, lambda p, x: attend(p, x, soft_cap=0.0), "soft_cap = 0.* above 0"),
    (64, lambda p, x: attend(p, x, soft_cap=-1.0), "soft_cap = -1"),
    (64, lambda p, x: attend(p, x, rope=0), "rope = 0 is not of this program"),
    (64, lambda p, x: attend(p, x, rope=p.rope(ones(5))), "rope = 0 turns 10 dimensions; head_dim = 8"),
    (64, lambda p, x: attend(p, x, q_norm=ones(16)), "q_norm has 16 values; a head has 8, all together 32"),
    (64, lambda p, x: attend(p, x, k_norm=ones(32)), "k_norm has 32 values; a head has 8, all together 16"),
    (64, lambda p, x: attend(p, x, k_norm=ones(8), norm_eps=-1.0), "norm_eps = -1"),
    (64, lambda p, x: attend(p, x, sinks=ones(2)), "sinks has 2 values; heads = 4"),
    (64, lambda p, x: attend(p, x, sinks=np.full(4, inf, np.float32)), "sinks = inf"),
    (64, lambda p, x: attend(p, x, group=-1), "group = -1"),
    (64, lambda p, x: attend(p, x, group=1024), "group = 1024"),
    (64, lambda p, x: (attend(p, x), attend(p, x, KEYS[:2].copy(), VALUES[:2].copy())),
     "cache: the layers of group = 0 differ"),
    (2**30, lambda p, x: (p.keep(x), p.keep(x)), "keep: with x, of width 1073741824, more than 2\\^30"),
    (32, lambda p, x: (p.keep(x), p.keep(p.select_logit_rows(x))), "keep: all that is kept"),
    (32, lambda p, x: p.select_logit_rows(p.select_logit_rows(x)), "x has only the rows"),
    (32, lambda p, x: p.output(x + 1), "value 1"),
    (32, lambda p, x: p.output(x), "x is the program's input"),
]  # fmt: skip


@pytest.mark.parametrize(("width", "record", "message"), RECORDINGS)
def test_recordings(width: int, record: Callable[[Any, int], Any], message: str) -> None:
    p = program()
    with pytest.raises((ValueError, TypeError), match=message):
        record(p, p.input(width))


def attention(**changes: Any) -> Any:
    p = program()
    p.output(attend(p, p.input(64), **changes))
    return p


RUNS: list[tuple[tuple[Any, ...], str]] = [
    (([0, 0], [0], [2], [[[0]], [[1]]], [0], X), "of one length"),
    (([0], [0], [2], [[[0]]], [0], X), "tokens has 1 values; the spans have 2 rows"),
    (([0, -1], [0], [2], [[[0]]], [0], X), "tokens holds -1"),
    (([0, 0], [-1], [2], [[[0]]], [0], X), "start of span 0 = -1"),
    (([0, 0], [0], [0], [[[0]]], [0], X), "rows of span 0 = 0"),
    (([0, 0], [0], [2], [[[0]]], [3], X), "logit_rows of span 0 = 3"),
    (([0, 0], [2**31 - 1], [2], [[[0]]], [0], X), "start and rows of span 0 lead to 2147483649"),
    (([0, 0], [0], [2**31 - 1], [[[0]]], [0], X), "start and rows of span 0 lead to 2147483647"),
    (([0, 0], [0], [2], [[]], [0], X), "tables of span 0 has 0 groups; the program has 1"),
    (([0, 0], [15], [2], [[[0]]], [0], X), "table 0 of span 0 holds 1 blocks of 16; 17 positions"),
    (([0, 0], [0], [2], [[[3]]], [0], X), "table 0 of span 0 names block 3; there are 3"),
    (([0, 0], [0], [2], [[[-1]]], [0], X), "table 0 of span 0 names block -1; there are 3"),
    (([0, 0], [0], [2], [[[0]]], [0]), "input: the program needs one"),
    (([0, 0], [0], [2], [[[0]]], [0], X[:1]), r"input has shape \(1, 64\).*\(2, 64\)"),
    (([0, 0], [0], [2], [[[0]]], [0], X, X), "kept: the program keeps nothing"),
]


@pytest.mark.parametrize(("arguments", "message"), RUNS)
def test_runs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention().run(*arguments)


def test_an_entry_that_would_be_read_has_to_be_a_block() -> None:
    """A window of 17 from position 48 on sees 32 and later: the first two blocks of 16 may be gone."""
    p, x = attention(window=17), X[:1]
    p.run([0], [48], [1], [[[-1, -1, 2, 0]]], [0], x)
    with pytest.raises(ValueError, match="table 0 of span 0 names block -1"):
        p.run([0], [47], [1], [[[-1, -1, 2]]], [0], x)
    with pytest.raises(ValueError, match="table 0 of span 0 names block -1"):
        p.run([0], [48], [1], [[[-1, -1, 2, -1]]], [0], x)


def test_the_longest_window_of_a_group_counts() -> None:
    p = program()
    y = attend(p, p.input(64), window=17)
    p.output(attend(p, p.linear(y, [matrix(numbers(64, 32))]), KEYS.copy(), VALUES.copy(), window=40))
    with pytest.raises(ValueError, match="table 0 of span 0 names block -1"):
        p.run([0], [48], [1], [[[-1, -1, 2, 0]]], [0], X[:1])


def test_a_group_that_no_layer_is_of_needs_no_table() -> None:
    p = attention(group=1)
    assert p.run([0], [0], [1], [[[], [2]]], [0], X[:1]).shape == (1, 32)
    with pytest.raises(ValueError, match="tables of span 0 has 1 groups; the program has 2"):
        p.run([0], [0], [1], [[[2]]], [0], X[:1])


def test_tokens_beyond_the_table() -> None:
    p = program()
    p.output(p.embed(coarse_matrix(numbers(10, 32))[0]))
    with pytest.raises(ValueError, match="tokens holds 10; vocab = 10"):
        p.run([10], [0], [1], [[]], [0])


@pytest.mark.parametrize("sizes", [(10, 20), (20, 10)])
def test_tokens_beyond_the_smaller_of_two_tables(sizes: tuple[int, int]) -> None:
    p = program()
    first, second = (p.embed(matrix(numbers(size, 32))) for size in sizes)
    p.output(p.linear(first, [SQUARE], second))
    with pytest.raises(ValueError, match="tokens holds 10; vocab = 10"):
        p.run([10], [0], [1], [[]], [0])


AFTERWARDS: list[Callable[[Any, int], Any]] = [
    lambda p, x: p.linear(x, [SMALL]),
    lambda p, x: p.norm(x, ones(32), 0.1),
    lambda p, x: p.rope(ones(4)),
    lambda p, x: p.input(32),
    lambda p, x: p.keep(x),
    lambda p, x: p.output(x + 1),
]


@pytest.mark.parametrize("record", AFTERWARDS)
def test_nothing_can_be_added_after_the_output(record: Callable[[Any, int], Any]) -> None:
    p = program()
    x = p.input(32)
    p.output(p.norm(x, ones(32), 0.1))
    with pytest.raises(ValueError, match=r"nothing can be added|has one already"):
        record(p, x)


def test_what_was_refused_leaves_the_program_as_it_was() -> None:
    p = program(BEST)
    x = p.input(32)
    with pytest.raises(ValueError, match="weights is empty"):
        p.linear(x, [])
    y = p.linear(x, [SMALL])
    with pytest.raises(ValueError, match="value 7"):
        p.output(7)
    p.output(y)
    good = [[0], [0], [1], [[]], [0], X[:1, :32].copy()]
    with pytest.raises(ValueError, match="start of span 0 = -1"):
        p.run([0], [-1], *good[2:])
    assert p.run(*good).shape == (1, 4)
