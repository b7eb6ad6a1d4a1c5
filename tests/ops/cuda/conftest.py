"""Triton's interpreter, made fast enough to test with, and tapes in place of graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import triton.language as tl
from triton.runtime import interpreter

from outrider.ops.cuda import norms
from tests.ops.cuda import ON_GPU
from tests.ops.cuda.tape import record_on_tapes


class _Kept:
    def restore(self) -> None:
        """What was put in place stays for the next call."""


@pytest.fixture(scope="session", autouse=True)
def _interpreter() -> Iterator[None]:
    """The interpreter puts functions of its own in place of the whole language's at each call of a kernel and
    of each function that it calls, which takes most of the time of a small one. Here it does so once."""
    if ON_GPU:
        yield
        return
    functions: tuple[Any, ...] = (norms._norm, tl.zeros)  # which see `tl`, and `tl.core`
    scopes, kept = [interpreter._patch_lang(function.fn) for function in functions], _Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda fn: kept)
        record_on_tapes(patch)
        yield
    for scope in reversed(scopes):
        scope.restore()
