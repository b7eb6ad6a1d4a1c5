"""Passes over a vocabulary that an edit needs.

On the CPU they are NumPy's, which stay in the calling thread. PyTorch would share 50,000 numbers out over its
threads, and on a machine that is busy, with the native kernels for example, the wait for another thread takes
a hundred times as long as the work.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def copied(logits: Tensor) -> Tensor:
    """The same numbers, to be changed."""
    return torch.from_numpy(logits.numpy().copy()) if _for_numpy(logits) else logits.clone()


def bar(row: Tensor, barred: Tensor) -> None:
    """-inf in `row` [vocab] where `barred`, bool [vocab] on the same device, holds."""
    if _for_numpy(row):
        np.copyto(row.numpy(), -np.inf, where=barred.numpy())
    else:
        row.masked_fill_(barred, -torch.inf)


def is_empty(row: Tensor) -> bool:
    """Whether `row` [vocab] holds nothing but -inf."""
    largest = row.numpy().max() if _for_numpy(row) else row.max().item()
    return bool(largest == -np.inf)


def _for_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16  # which NumPy does not have
