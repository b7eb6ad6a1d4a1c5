"""Both backends, asked the same through the seam."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from outrider.ops.base import Backend, Forward
from outrider.ops.choice import Choice, Rows
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from tests.ops.oracle import Array

BACKENDS = ("torch", "native")


@cache
def backend(name: str) -> Backend:
    if name == "torch":
        return TorchBackend("cpu", "float32")
    return NativeBackend(cache_dtype="float32", num_threads=2)


@cache
def handed_through(name: str, vocab: int) -> Forward:
    """A pass whose logits are its input."""

    def definition(ops: Any, caches: Sequence[Any]) -> Any:
        return ops.select_logit_rows(ops.input(vocab))

    return backend(name).compile(definition, (), 16)


def chosen(name: str, logits: Array, choice: Choice) -> tuple[Sequence[int], Rows]:
    """Tokens from logits, float32 [rows, vocab], and what can be looked at then."""
    rows, vocab = logits.shape
    span = Span([0] * rows, 0, (), rows)
    given = np.array(logits, np.float32)  # contiguous
    stepped = handed_through(name, vocab).step([span], [choice], given, looks=True)
    assert stepped.rows is not None
    assert np.array_equal(given, logits, equal_nan=True), "logits are not written to"
    return stepped.tokens[0], stepped.rows[0]
