"""Tests of the GPU's kernels: on a GPU where there is one, else in Triton's interpreter on the CPU."""

from outrider.ops.cuda.device import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
ON_GPU = not INTERPRETED
