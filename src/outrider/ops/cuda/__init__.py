"""Kernels in Triton for GPUs, row-invariant by construction."""
