"""Weights and logits are checked before anything is read; errors name the argument."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from outrider.errors import ConfigError
from outrider.ops.cpu import extension
from tests.ops.native import INSTRUCTION_SETS, native, threads

BEST = INSTRUCTION_SETS[0]
ROWS = np.zeros((4, 34), np.uint8)  # of 32 inputs in Q8_0
ORDER = np.arange(3, dtype=np.int32)


def packed(format: str = "Q8_0", parts: Any = ((ROWS, None),), inputs: int = 32, **more: Any) -> Any:
    return lambda: native.Matrix.pack(threads(1), format, list(parts), inputs, **more)


WEIGHTS: list[tuple[Callable[[], Any], str]] = [
    (packed("int3"), "format = 'int3' is not known; known are F32, F16, BF16, Q8_0"),
    (packed(parts=[]), "parts has 0 outputs"),
    (packed(parts=[(ROWS.view(np.int8), None)]), "part 0 is .*has to be uint8"),
    (packed(parts=[(ROWS[0], None)]), "part 0 has 1 dimensions"),
    (packed(parts=[(ROWS, None), (ROWS[:0], None)]), "part 1 has 0 rows"),
    (
        packed(parts=[(ROWS, None), (ROWS[:, 1:], None)]),
        "part 1 has rows of 33 bytes; Q8_0 of 32 inputs has 34",
    ),
    (packed("Q4_K"), "part 0 has rows of 34 bytes; Q4_K of 32 inputs has 144"),
    (packed(inputs=33), "part 0 has rows of 34 bytes; Q8_0 of 33 inputs has 68"),
    (packed(parts=[(np.zeros((4, 68), np.uint8)[:, ::2], None)]), "part 0 has rows that are not contiguous"),
    (packed(inputs=0), "inputs = 0 has to be 1 to 2\\^24"),
    (packed(inputs=2**24 + 1), "inputs = 16777217 has to be"),
    (packed(parts=[(ROWS, ORDER.astype(np.int64))]), "order of part 0 is int64; it has to be int32"),
    (packed(parts=[(ROWS, ORDER[None])]), r"order of part 0 has shape \(1, 3\)"),
    (packed(parts=[(ROWS, ORDER + 2)]), "order of part 0 holds 4; it has to be 0 to 3"),
    (packed(parts=[(ROWS, ORDER - 1)]), "order of part 0 holds -1"),
    (packed(columns=ORDER), r"columns has shape \(3\).*\(32\)"),
    (packed(columns=np.zeros(32, np.int32)), "columns holds 0 twice"),
    (packed(columns=np.arange(1, 33, dtype=np.int32)), "columns holds 32; it has to be 0 to 31"),
    (packed(bias=np.zeros(5, np.float32)), r"bias has shape \(5\).*\(4\)"),
    (packed(bias=np.zeros(4)), "bias is .*has to be float32"),
    (packed(bias=np.zeros(17, np.uint8)[1:].view(np.float32)), "bias is not aligned"),
    (packed(bias=np.zeros((4, 2), np.float32)[:, 0]), "bias has to be C-contiguous"),
    (lambda: native.Matrix.bytes_of("int3", 4, 32), "format = 'int3'"),
    (lambda: native.Matrix.bytes_of("F32", 0, 32), "outputs = 0"),
    (lambda: native.Matrix.bytes_of("F32", 4, 2**24 + 1), "inputs = 16777217"),
]


@pytest.mark.parametrize(("make", "message"), WEIGHTS)
def test_weights(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


GREEDY = native.Choice(0, 1, None, 0, 0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: native.scores(np.zeros((1, 5)), GREEDY, BEST), TypeError, "logits is"),
        (lambda: native.scores(np.zeros((2, 5), np.float32), GREEDY, BEST), ValueError, "logits has shape"),
        (lambda: native.scores(np.zeros((1, 0), np.float32), GREEDY, BEST), ValueError, "has 0 columns"),
        (lambda: native.scores(np.zeros((1, 5), np.float32), GREEDY, "sse9"), ValueError, "instruction_set"),
        (lambda: native.ranked(np.zeros((1, 5), np.float32), 0, 1, BEST), ValueError, "logits has shape"),
        (lambda: native.ranked(np.zeros(0, np.float32), 0, 1, BEST), ValueError, "has 0 columns"),
        (lambda: native.Filters(0.0, 0.0, 0, 1.0), ValueError, "temperature = 0"),
        (lambda: native.Filters(inf, 0.0, 0, 1.0), ValueError, "temperature = inf"),
        (lambda: native.Filters(nan, 0.0, 0, 1.0), ValueError, "temperature = nan"),
        (lambda: native.Filters(1.0, 1.5, 0, 0.5), ValueError, "min_p = 1.5"),
        (lambda: native.Filters(1.0, -0.5, 0, 0.5), ValueError, "min_p = -0.5"),
        (lambda: native.Filters(1.0, nan, 0, 0.5), ValueError, "min_p = nan"),
        (lambda: native.Filters(1.0, 0.0, -1, 0.5), ValueError, "top_k = -1"),
        (lambda: native.Filters(1.0, 0.0, 0, 0.0), ValueError, "top_p = 0"),
        (lambda: native.Filters(1.0, 0.0, 0, 1.5), ValueError, "top_p = 1.5"),
        (lambda: native.Filters(1.0, 0.0, 0, nan), ValueError, "top_p = nan"),
    ],
)
def test_choosing(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_missing_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is what works: there is nothing of ours to install by name."""
    monkeypatch.setattr(extension, "native", None)
    with pytest.raises(ConfigError, match=r"in a clone of Outrider's repository: pip install .* \.$"):
        extension.require()
