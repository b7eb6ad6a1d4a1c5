"""Triton's interpreter, made row-invariant too: NumPy's products are a library's, which is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def multiply_rows_alone() -> None:
    """From here on the interpreter multiplies each row of a product by itself."""
    InterpreterBuilder.create_dot = _dot


def _dot(_: Any, a: TensorHandle, b: TensorHandle, d: TensorHandle, *how: Any) -> TensorHandle:
    """a b + d, of matrices of floats. how: of no meaning here."""
    product = np.matmul(a.data[:, None], b.data, dtype=d.data.dtype)[:, 0]
    return TensorHandle(product + d.data, d.dtype.scalar)
