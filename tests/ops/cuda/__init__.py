"""Tests of the GPU's kernels: on a GPU where there is one, else in Triton's interpreter on the CPU."""

from collections.abc import Sequence

import torch

from outrider.ops.cuda.device import INTERPRETED, upload
from outrider.ops.cuda.layout import GpuBatch, RowLayout
from outrider.ops.span import Span

DEVICE = "cpu" if INTERPRETED else "cuda"
ON_GPU = not INTERPRETED


def batch_of(spans: Sequence[Span], block_size: int) -> GpuBatch:
    """Spans as the device has them."""
    laid = RowLayout.of(spans, block_size)
    return laid.batch(upload(laid.arrays, torch.device(DEVICE)))
