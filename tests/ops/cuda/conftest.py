"""Triton's interpreter, made fast enough to test with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import triton.language as tl
from triton.runtime import interpreter

from outrider.ops.cuda import norms
from tests.ops.cuda import ON_GPU


class _Kept:
    def restore(self) -> None:
        """What was put in place stays for the next call."""


@pytest.fixture(scope="session", autouse=True)
def _language_patched_once() -> Iterator[None]:
    """The interpreter puts functions of its own in place of the whole language's at each call of a kernel and
    of each function that it calls, which takes most of the time of a small one."""
    if ON_GPU:
        yield
        return
    functions: tuple[Any, ...] = (norms._norm, tl.zeros)  # which see `tl`, and `tl.core`
    scopes, kept = [interpreter._patch_lang(function.fn) for function in functions], _Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda fn: kept)
        yield
    for scope in reversed(scopes):
        scope.restore()
