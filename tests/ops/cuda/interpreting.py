"""Triton's interpreter, made fast enough to test with: with the same results, it asks Python less.

Of the time that an operation on a tile takes, nearly all goes into types: they are made anew for each result,
and their shapes are wrapped and unwrapped number by number. Here what depends on types alone is found once.
And the language is patched once, not at each call of a kernel and of each function that it calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

from outrider.ops.cuda import norms

EXACT = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
PLAIN = {int, float, bool, str, type(None), tl.tensor}  # which hold no constant of the compiler's


class _Kept:
    def restore(self) -> None:
        """What was put in place stays for the next call."""


@contextmanager
def quickened() -> Iterator[pytest.MonkeyPatch]:
    """While this lasts, and whatever else is patched with it."""
    functions: tuple[Any, ...] = (norms._norm, tl.zeros)  # which see `tl`, and `tl.core`
    scopes, kept = [interpreter._patch_lang(function.fn) for function in functions], _Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda fn: kept)
        _quicken(patch)
        yield patch
    for scope in reversed(scopes):
        scope.restore()


def _quicken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(interpreter.GridExecutor, "__call__", _launch)
    patch.setattr(core, "_unwrap_if_constexpr", _unwrapping(core._unwrap_if_constexpr))
    patch.setattr(core.block_type, "__init__", _blocks(core.block_type.__init__))
    patch.setattr(core.tensor, "__init__", _tensors(core.tensor.__init__))
    patch.setattr(interpreter, "_get_np_dtype", _kinds(interpreter._get_np_dtype))
    patch.setattr(TritonSemantic, "broadcast_impl_value", _broadcasts(TritonSemantic.broadcast_impl_value))
    patch.setattr(TritonSemantic, "binary_op_sanitize_overflow_impl", _refuse_overflow)


def _launch(executor: Any, *arguments: Any, **constants: Any) -> None:
    """Without copies of the arguments, which lie on the CPU."""
    given = dict(zip(executor.arg_names, arguments, strict=False))
    given |= {name: value for name, value in constants.items() if name in executor.arg_names}
    for name in given.keys() - executor.constexprs:
        given[name] = interpreter._implicit_cvt(given[name])
    x, y, z = (*executor.grid, 1, 1)[:3]
    interpreter.interpreter_builder.set_grid_dim(x, y, z)
    for place in product(range(x), range(y), range(z)):
        interpreter.interpreter_builder.set_grid_idx(*place)
        executor.fn(**given)


def _unwrapping(real: Any) -> Any:
    def unwrapped(value: Any) -> Any:
        return value if type(value) in PLAIN else real(value)

    return unwrapped


def _blocks(real: Any) -> Any:
    known = dict[Hashable, dict[str, Any]]()

    def init(block: Any, element: Any, shape: Any) -> None:
        key = (element.name, *map(core._unwrap_if_constexpr, shape))
        if key not in known:
            real(block, element, shape)
            known[key] = {**vars(block)}
        vars(block).update(known[key])

    return init


def _tensors(real: Any) -> Any:
    known = dict[str, tuple[Any, Any]]()

    def init(tensor: Any, handle: Any, type: Any) -> None:
        if type.name not in known:
            real(tensor, handle, type)
            known[type.name] = tensor.shape, tensor.numel
        tensor.handle, tensor.type, tensor.dtype = handle, type, type.scalar
        tensor.shape, tensor.numel = known[type.name]

    return init


def _kinds(real: Any) -> Any:
    known = dict[str, Any]()

    def kind(type: Any) -> Any:
        scalar = type.scalar
        if scalar.name not in known:
            known[scalar.name] = real(scalar)
        return known[scalar.name]

    return kind


def _broadcasts(real: Any) -> Any:
    def broadcast(semantic: Any, a: Any, b: Any) -> Any:
        return (a, b) if a.shape is b.shape else real(semantic, a, b)

    return broadcast


def _refuse_overflow(_: Any, a: Any, b: Any, operation: Any) -> None:
    """Whole numbers of fewer than 64 bits do not overflow. Triton asks it by eight operations more."""
    x, y = a.handle.data, b.handle.data
    if x.itemsize < 8:
        exact = EXACT[operation.__name__](x, y, dtype=np.int64)
        assert (exact.astype(x.dtype) == exact).all(), f"{operation.__name__} overflows {a.dtype}"
