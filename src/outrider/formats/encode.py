"""Turning floats into the codes and scales of a format. Each takes float32 [rows, inputs]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.formats.blocks import pack_nibbles
from outrider.formats.format import Bytes, Floats

GROUP = 32
SHARES = tuple(
    0.8 + 0.05 * i for i in range(6)
)  # of a group's range, for which Q4_0 tries codes: 0.8 to 1.05
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

    Codes reach from -8 to 7, so the value of largest magnitude is given the end with room for it. For codes q
    of values x the best scale is qx / qq, which leaves an error of xx - qx^2 / qq.
    """
    groups = _groups_of(values)
    turned = np.ascontiguousarray(groups.reshape(-1, GROUP).T)  # [32, groups]: long rows are computed faster
    least, most = turned.min(axis=0), turned.max(axis=0)
    largest = np.where(-least > most, least, most)
    gain, scales = np.zeros_like(largest), np.zeros_like(largest)
    for share in SHARES:
        codes = _rounded(turned / _nonzero(largest * np.float32(share / -8)), -8, 7)
        qq, qx = _nonzero(np.einsum("ig,ig->g", codes, codes)), np.einsum("ig,ig->g", codes, turned)
        tried = qx * qx / qq
        better = tried > gain
        gain, scales = np.where(better, tried, gain), np.where(better, qx / qq, scales)
    chosen = _halves(scales.reshape(groups.shape[:2]))
    return rows_of(chosen, pack_nibbles((_codes(groups, chosen, -8, 7) + 8).astype(np.uint8)))


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
    return _rounded(groups / _nonzero(scales.astype(np.float32))[..., None], lowest, highest)


def _rounded(values: Floats, lowest: int, highest: int) -> Floats:
    """To whole numbers of a range, in place."""
    np.rint(values, out=values)
    return np.clip(values, lowest, highest, out=values)


def _nonzero(scales: Floats) -> Floats:
    """Scales to divide by: a group of zeros has scale 0 and any codes will do."""
    return np.where(scales == 0, np.float32(1), scales)


def _halves(scales: Floats) -> Halves:
    with np.errstate(over="ignore"):
        return scales.astype("<f2")
