"""Turning floats into the codes and scales of a format. Each takes float32 [rows, inputs]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats.blocks import pack_nibbles
from outrider.formats.format import Bytes, Floats

GROUP = 32
SHRINKS = tuple(0.7 + 0.05 * i for i in range(9))  # shares of a group's range that Q4_0 tries: 0.7 to 1.1
Halves = NDArray[np.float16]


def q8_0(values: Floats) -> Bytes:
    """Symmetric, a scale for 32 inputs."""
    groups = _groups_of(values)
    scales = _halves(np.abs(groups).max(axis=-1) / np.float32(127))
    return rows_of(scales, _codes(groups, scales, -127, 127).astype(np.int8).view(np.uint8))


def q8_channel(values: Floats) -> Bytes:
    """Symmetric, a scale for each output."""
    scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(values / _nonzero(scales)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scales.astype("<f4").view(np.uint8), codes.view(np.uint8)], axis=1)


def q4_0(values: Floats) -> Bytes:
    """Symmetric, a scale for 32 inputs: of a few candidates the one with the least squared error.

    Codes reach from -8 to 7, so the value of largest magnitude is given the end with room for it.
    """
    groups = _groups_of(values)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    best = np.full_like(largest, np.inf)
    scales = np.zeros_like(largest, dtype=np.float16)
    for share in SHRINKS:
        tried = _halves(largest * np.float32(share) / np.float32(-8))
        error = np.square(_codes(groups, tried, -8, 7) * _factors(tried) - groups).sum(axis=-1)
        scales = np.where(error < best, tried, scales)
        best = np.minimum(error, best)
    return rows_of(scales, pack_nibbles((_codes(groups, scales, -8, 7) + 8).astype(np.uint8)))


def q4_1(values: Floats) -> Bytes:
    """A scale and a minimum for 32 inputs."""
    groups = _groups_of(values)
    mins = _halves(groups.min(axis=-1))
    scales = _halves((groups.max(axis=-1) - mins.astype(np.float32)) / np.float32(15))
    codes = _codes(groups - mins.astype(np.float32)[..., None], scales, 0, 15)
    return rows_of(scales, mins, pack_nibbles(codes.astype(np.uint8)))


def rows_of(*parts: NDArray[np.generic]) -> Bytes:
    """Rows of blocks, of the scales [rows, groups] and codes [rows, groups, bytes] of each."""
    data = [part[..., None].view(np.uint8) if part.ndim == 2 else part for part in parts]
    return np.concatenate(data, axis=-1).reshape(len(parts[0]), -1)


def _groups_of(values: Floats) -> Floats:
    """[rows, groups, 32], the last group padded with zeros."""
    rows, inputs = values.shape
    padded = np.pad(values, ((0, 0), (0, -inputs % GROUP))) if inputs % GROUP else values
    return padded.reshape(rows, -1, GROUP)


def _codes(groups: Floats, scales: Halves, lowest: int, highest: int) -> Floats:
    codes: Floats = groups / _factors(scales)
    return np.rint(codes, out=codes).clip(lowest, highest, out=codes)


def _factors(scales: Halves) -> Floats:
    return _nonzero(scales.astype(np.float32))[..., None]


def _nonzero(scales: Floats) -> Floats:
    """Scales to divide by: a group of zeros has scale 0 and any codes will do."""
    return np.where(scales == 0, np.float32(1), scales)


def _halves(scales: Floats) -> Halves:
    with np.errstate(over="ignore"):
        return scales.astype("<f2")
