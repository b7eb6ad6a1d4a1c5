"""What the extension is handed is checked before anything is read; errors name the argument."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch

from outrider.errors import ConfigError
from outrider.ops.cpu import extension
from tests.ops.native import INSTRUCTION_SETS, native, pack, random_weight, threads

BEST = INSTRUCTION_SETS[0]
VALUES = torch.randn(4, 32)
CODES, SCALES = torch.zeros(4, 40, dtype=torch.uint8), torch.ones(4, 2, dtype=torch.float16)


def misaligned() -> np.ndarray[Any, Any]:
    return np.frombuffer(bytes(4 * 4 * 32 + 1), dtype=np.uint8)[1:].view(np.float32).reshape(4, 32)


WEIGHTS: list[tuple[str, dict[str, Any], str]] = [
    ("int3", {"values": VALUES}, "int3.*float32, bfloat16, int8"),
    ("float32", {"values": VALUES.double()}, "values is .*has to be float32"),
    ("bfloat16", {"values": VALUES}, "values is float32.*bfloat16"),
    ("float32", {"values": VALUES[0]}, r"values has shape \(32\)"),
    ("float32", {"values": VALUES.T}, "values has to be C-contiguous"),
    ("float32", {"values": VALUES[:0]}, "values has 0 rows"),
    ("float32", {"values": VALUES[:, :0]}, "values has 0 columns"),
    ("int8", {"values": torch.zeros(1, 2**24 + 1, dtype=torch.uint8)}, "values has 16777217 columns.*2\\^24"),
    ("float32", {"values": misaligned()}, "values is not aligned"),
    ("float32", {"values": VALUES, "scales": SCALES}, "scales: this format has none"),
    ("float32", {"values": VALUES, "bias": torch.zeros(5)}, r"bias has shape \(5\).*\(4\)"),
    ("int8", {"values": CODES}, "scales: this format needs them"),
    ("int8", {"values": CODES, "scales": SCALES[:, :1].contiguous()}, r"scales has .*\(4, 1\).*\(4, 2\)"),
    ("int8", {"values": CODES, "scales": SCALES.float()}, "scales is float32.*float16"),
    ("int8_channel", {"values": CODES, "scales": SCALES}, "scales is float16.*float32"),
    ("int4", {"values": CODES, "scales": SCALES, "mins": SCALES}, "mins: this format has none"),
    ("int4_min", {"values": CODES, "scales": SCALES}, "mins: this format needs them"),
]


@pytest.mark.parametrize(("format", "arguments", "message"), WEIGHTS)
def test_weights(format: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        native.Matrix.pack(format, **arguments)


def program(shape: list[int] | None = None) -> Any:
    return native.Program(threads(1), BEST, shape, [1.0] * (shape[2] // 2) if shape else [])


SHAPE = [4, 2, 8, 100]
KEYS, VALUES_CACHE = torch.zeros(3, 2, 8, 16), torch.zeros(3, 2, 16, 8)
SMALL, SQUARE = pack(random_weight(4, 32, "float32")), pack(random_weight(32, 32, "float32"))

MADE: list[tuple[Callable[[], Any], str]] = [
    (lambda: native.Program(threads(1), "sse9"), "instruction_set = 'sse9'.*portable"),
    (lambda: native.Threads(0), "count = 0"),
    (lambda: program([4, 3, 8, 9]), "heads = 4 cannot share kv_heads = 3"),
    (lambda: program([4, 2, 7, 9]), "head_dim = 7"),
    (lambda: program([2**20, 2, 8, 9]), "heads = 1048576"),
    (lambda: program([4, 2, 2**14, 9]), "head_dim = 16384"),
    (lambda: program([4, 2, 8, 0]), "window = 0"),
    (lambda: program([4, 2, 8, 2**31 - 1]), "window = 2147483647"),
    (lambda: program().input(2**31 - 1), "width = 2147483647"),
    (lambda: native.Program(threads(1), BEST, SHAPE, [1.0]), "inv_freq has 1 values; head_dim implies 4"),
    (lambda: native.Program(threads(1), BEST, SHAPE, [1.0, 1.0, nan, 1.0]), "inv_freq = nan"),
    (lambda: native.Program(threads(1), BEST, SHAPE, [1.0] * 4, inf), "attention_factor = inf"),
    (lambda: program().run([], [], [], [], []), "no output"),
]


@pytest.mark.parametrize(("make", "message"), MADE)
def test_programs_and_threads(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


RECORDINGS: list[tuple[int, Callable[[Any, int], Any], str]] = [
    (32, lambda p, x: p.linear(x + 1, [SMALL]), "value 1 is not of this program"),
    (31, lambda p, x: p.linear(x, [SMALL]), "weight has 32 inputs; x has width 31"),
    (32, lambda p, x: p.linear(x, []), "weights is empty"),
    (32, lambda p, x: p.linear(x, [SMALL, None]), "weights holds None"),
    (32, lambda p, x: p.linear(x, [SMALL], x), "residual has width 32"),
    (32, lambda p, x: p.gated(x, SMALL, pack(random_weight(5, 32, "float32"))), "gate is .*have to agree"),
    (32, lambda p, x: p.rms_norm(x, torch.ones(31), 0.1), "weight has 31 values; x has width 32"),
    (32, lambda p, x: p.rms_norm(x, torch.ones(32), -1.0), "eps = -1"),
    (32, lambda p, x: p.rms_norm(x, torch.ones(32), nan), "eps = nan"),
    (32, lambda p, x: p.rms_norm(x, torch.ones(32), inf), "eps = inf"),
    (32, lambda p, x: p.attend(x, KEYS[:, :, 1:].contiguous(), VALUES_CACHE), r"keys .*\(any, 2, 8, any\)"),
    (32, lambda p, x: p.attend(x, KEYS, KEYS), r"values has shape .*\(3, 2, 16, 8\)"),
    (32, lambda p, x: p.attend(x, KEYS, VALUES_CACHE.bfloat16()), "values is bfloat16"),
    (31, lambda p, x: p.attend(x, KEYS, VALUES_CACHE), "q has width 31; the heads imply 32"),
    (63, lambda p, x: p.rotate_and_store(x, KEYS, VALUES_CACHE), "qkv has width 63.*64"),
    (2**30, lambda p, x: (p.keep(x), p.keep(x)), "keep: with x, of width 1073741824, more than 2\\^30"),
    (32, lambda p, x: p.output(x + 1), "value 1"),
    (32, lambda p, x: p.output(x), "x is the program's input"),
    (32, lambda p, x: p.attend(p.select_logit_rows(x), KEYS, VALUES_CACHE), "q has only the rows"),
    (
        64,
        lambda p, x: p.rotate_and_store(p.select_logit_rows(x), KEYS, VALUES_CACHE),
        "qkv has only the rows",
    ),
    (32, lambda p, x: p.select_logit_rows(p.select_logit_rows(x)), "x has only the rows"),
    (32, lambda p, x: p.linear(p.select_logit_rows(x), [SQUARE], x), "residual and x .* same rows"),
]


@pytest.mark.parametrize(("width", "record", "message"), RECORDINGS)
def test_recordings(width: int, record: Callable[[Any, int], Any], message: str) -> None:
    p = program(SHAPE)
    with pytest.raises((ValueError, TypeError), match=message):
        record(p, p.input(width))


def test_attention_needs_its_shape() -> None:
    p = program()
    with pytest.raises(ValueError, match="without the shape of attention"):
        p.attend(p.input(32), KEYS, VALUES_CACHE)


def attention() -> Any:
    p = program(SHAPE)
    x = p.input(32)
    p.output(p.attend(x, KEYS, VALUES_CACHE))
    return p


X = torch.zeros(2, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0], [0], [2], [[0], [1]], [0], X), "of one length"),
        (([0], [0], [2], [[0]], [0], X), "tokens has 1 values; the spans have 2 rows"),
        (([0, -1], [0], [2], [[0]], [0], X), "tokens holds -1"),
        (([0, 0], [-1], [2], [[0]], [0], X), "start of span 0 = -1"),
        (([0, 0], [0], [0], [[0]], [0], X), "rows of span 0 = 0"),
        (([0, 0], [0], [2], [[0]], [3], X), "logit_rows of span 0 = 3"),
        (([0, 0], [2**31 - 1], [2], [[0]], [0], X), "start and rows of span 0 lead to 2147483649"),
        (([0, 0], [0], [2**31 - 1], [[0]], [0], X), "start and rows of span 0 lead to 2147483647"),
        (([0, 0], [15], [2], [[0]], [0], X), "table of span 0 holds 1 blocks of 16; 17 positions"),
        (([0, 0], [0], [2], [[3]], [0], X), "table of span 0 names block 3; there are 3"),
        (([0, 0], [0], [2], [[0]], [0]), "input: the program needs one"),
        (([0, 0], [0], [2], [[0]], [0], X[:1]), r"input has shape \(1, 32\).*\(2, 32\)"),
    ],
)
def test_runs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention().run(*arguments)


def test_tokens_beyond_the_table() -> None:
    p = program()
    p.output(p.embed(pack(random_weight(10, 32, "int8"))))
    with pytest.raises(ValueError, match="tokens holds 10; vocab = 10"):
        p.run([10], [0], [1], [[]], [0])


@pytest.mark.parametrize("sizes", [(10, 20), (20, 10)])
def test_tokens_beyond_the_smaller_of_two_tables(sizes: tuple[int, int]) -> None:
    p = program()
    first, second = (p.embed(pack(random_weight(size, 32, "float32"))) for size in sizes)
    p.output(p.linear(first, [SQUARE], second))
    with pytest.raises(ValueError, match="tokens holds 10; vocab = 10"):
        p.run([10], [0], [1], [[]], [0])


AFTERWARDS: list[Callable[[Any, int], Any]] = [
    lambda p, x: p.linear(x, [SMALL]),
    lambda p, x: p.rms_norm(x, torch.ones(32), 0.1),
    lambda p, x: p.input(32),
    lambda p, x: p.output(x + 1),
]


@pytest.mark.parametrize("record", AFTERWARDS)
def test_nothing_can_be_added_after_the_output(record: Callable[[Any, int], Any]) -> None:
    p = program()
    x = p.input(32)
    y = p.rms_norm(x, torch.ones(32), 0.1)
    p.output(y)
    with pytest.raises(ValueError, match=r"nothing can be added|has one already"):
        record(p, x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 5).double(), [1, 2], None, 1.0, 0.0, 0, 1.0), TypeError, "logits is"),
        ((torch.zeros(2, 5), [1], None, 1.0, 0.0, 0, 1.0), ValueError, "logits has shape"),
        ((torch.zeros(1, 0), [1], None, 1.0, 0.0, 0, 1.0), ValueError, "logits has 0 columns"),
        ((torch.zeros(1, 5), [1], None, 0.0, 0.0, 0, 1.0), ValueError, "temperature = 0"),
        ((torch.zeros(1, 5), [1], None, inf, 0.0, 0, 1.0), ValueError, "temperature = inf"),
        ((torch.zeros(1, 5), [1], None, nan, 0.0, 0, 1.0), ValueError, "temperature = nan"),
        ((torch.zeros(1, 5), [1], None, 1.0, 1.5, 0, 0.5), ValueError, "min_p = 1.5"),
        ((torch.zeros(1, 5), [1], None, 1.0, -0.5, 0, 0.5), ValueError, "min_p = -0.5"),
        ((torch.zeros(1, 5), [1], None, 1.0, nan, 0, 0.5), ValueError, "min_p = nan"),
        ((torch.zeros(1, 5), [1], None, 1.0, 0.0, -1, 0.5), ValueError, "top_k = -1"),
        ((torch.zeros(1, 5), [1], None, 1.0, 0.0, 0, 0.0), ValueError, "top_p = 0"),
        ((torch.zeros(1, 5), [1], None, 1.0, 0.0, 0, 1.5), ValueError, "top_p = 1.5"),
        ((torch.zeros(1, 5), [1], None, 1.0, 0.0, 0, nan), ValueError, "top_p = nan"),
        ((torch.zeros(1, 5), [1], torch.arange(4), 1.0, 0.0, 0, 1.0), ValueError, "ids has shape"),
        ((torch.zeros(1, 5), [1], torch.arange(5).int(), 1.0, 0.0, 0, 1.0), TypeError, "ids is"),
    ],
)
def test_choosing(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        native.choose(*arguments, BEST)


def test_a_missing_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is what works: there is nothing of ours to install by name."""
    monkeypatch.setattr(extension, "native", None)
    with pytest.raises(ConfigError, match=r"in a clone of Outrider's repository: pip install .* \.$"):
        extension.require()
