"""Weights as files store them, in every format, and what they are worth in float32.

The oracle is `gguf.quants.dequantize` for GGUF's formats and a few lines of NumPy for ours. Both work in
float32 as a kernel's `decode` does, scale * code and then the minimum, so they are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """A format: how its rows are stored, where its parts are, and its oracle.

    block, size: inputs that are stored together, and their bytes. head: bytes before them. halves: bytes of a
    block where float16 scales begin. codes: first and last byte of its codes. decode: `Bytes` -> float32
    [rows, inputs rounded up to whole blocks]. form: what activations become. has_mins: whether a minimum, or
    a zero of an output, is added in floating point.
    """

    name: str
    block: int
    size: int
    decode: Callable[[Bytes], Floats]
    halves: tuple[int, ...] = ()
    codes: tuple[int, int] = (0, 0)
    head: int = 0
    form: str = "int8"
    has_mins: bool = False

    def row_bytes(self, inputs: int) -> int:
        return self.head + -(-inputs // self.block) * self.size


def of_gguf(name: str, halves: tuple[int, ...] = (), codes: int = 0, **more: Any) -> Kind:
    """codes: the byte of a block where they begin; they go on to the next scale, or to the end."""
    type = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[type]
    last = min((at for at in halves if at > codes), default=size)
    return Kind(name, block, size, partial(dequantize, qtype=type), halves, (codes, last), **more)


def channels(data: Bytes) -> Floats:
    scale = data[:, :4].copy().view(np.float32)
    return scale * data[:, 4:].view(np.int8).astype(np.float32)


def u4(block: int) -> Kind:
    def decode(data: Bytes) -> Floats:
        blocks = data.reshape(len(data), -1, 3 + block // 2)
        scale = blocks[..., :2].copy().view(np.float16).astype(np.float32)[..., None]
        zero = blocks[..., 2].astype(np.float32)[..., None, None]
        pairs = blocks[..., 3:].reshape(*blocks.shape[:2], -1, 16)
        codes = np.concatenate([pairs & 15, pairs >> 4], axis=-1).astype(np.float32)
        values: Floats = (scale * (codes - zero)).reshape(len(data), -1)
        return values

    size = 3 + block // 2
    return Kind(f"U4_{block}", block, size, decode, (0,), (3, size), has_mins=True)


def e4m3(codes: Bytes) -> Floats:
    """The values of float8_e4m3fn, which has no infinities, and one NaN of each sign."""
    exponent, mantissa = (codes >> 3 & 15).astype(np.float32), (codes & 7).astype(np.float32)
    values = np.where(exponent > 0, 2 ** (exponent - 7) * (1 + mantissa / 8), mantissa * 2.0**-9)
    signed = np.where(codes & 128, -values, values)
    return np.where((codes & 127) == 127, np.nan, signed).astype(np.float32)


def f8_rows(data: Bytes) -> Floats:
    return data[:, :4].copy().view(np.float32) * e4m3(data[:, 4:])


def f8_blocks(data: Bytes) -> Floats:
    blocks = data.reshape(len(data), -1, 132)
    scale = blocks[..., :4].copy().view(np.float32)
    values: Floats = (scale * e4m3(blocks[..., 4:])).reshape(len(data), -1)
    return values


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        of_gguf("F32", form="float32"),
        of_gguf("F16", form="float32"),
        of_gguf("BF16", form="bfloat16"),
        of_gguf("Q8_0", (0,), 2),
        Kind("Q8_CHANNEL", 1, 1, channels, head=4),
        of_gguf("Q4_0", (0,), 2),
        of_gguf("Q4_1", (0, 2), 4, has_mins=True),
        of_gguf("Q5_0", (0,), 2),
        of_gguf("Q5_1", (0, 2), 4, has_mins=True),
        of_gguf("Q2_K", (80, 82), 16, has_mins=True),
        of_gguf("Q3_K", (108,)),
        of_gguf("Q4_K", (0, 2), 16, has_mins=True),
        of_gguf("Q5_K", (0, 2), 16, has_mins=True),
        of_gguf("Q6_K", (208,)),
        of_gguf("IQ4_NL", (0,), 2),
        of_gguf("IQ4_XS", (0,), 8),
        of_gguf("MXFP4", (), 1),
        u4(32),
        u4(64),
        u4(128),
        Kind("F8_E4M3", 1, 1, f8_rows, head=4, form="float32"),
        Kind("F8_BLOCK", 128, 132, f8_blocks, form="float32"),
    )
}


@dataclass(frozen=True)
class Stored:
    """A weight [outputs, inputs] of which `data` are the rows, and which of them each output has."""

    kind: Kind
    data: Bytes
    inputs: int
    order: NDArray[np.int32] | None = None
    columns: NDArray[np.int32] | None = None

    @property
    def format(self) -> str:
        return self.kind.name

    @property
    def outputs(self) -> int:
        return len(self.data if self.order is None else self.order)

    def dequantize(self) -> Floats:
        data = self.data if self.order is None else self.data[self.order]
        values = self.kind.decode(np.ascontiguousarray(data))[:, : self.inputs]
        if self.columns is None:
            return np.ascontiguousarray(values)
        placed = np.empty_like(values)
        placed[:, self.columns] = values
        return placed

    def magnitudes(self) -> Floats:
        """The sum of the magnitudes that a kernel adds up for each weight: a minimum may cancel the rest."""
        whole = self.dequantize()
        if not self.kind.has_mins:
            return np.abs(whole)
        least = self.without_codes().dequantize()
        sum: Floats = np.abs(whole - least) + np.abs(least)
        return sum

    def without_codes(self) -> Stored:
        """The same scales, and the code 0 everywhere."""
        data = self.data.copy()
        first, last = self.kind.codes
        data[:, self.kind.head :].reshape(len(data), -1, self.kind.size)[..., first:last] = 0
        return replace(self, data=data)


def random_stored(outputs: int, inputs: int, format: str, seed: int = 0) -> Stored:
    """Any codes, and scales of both signs; floats are normally distributed."""
    kind, draw = KINDS[format], np.random.default_rng(seed)
    if kind.block == 1 and not kind.head:
        floats = draw.normal(size=(outputs, inputs)).astype(np.float32)
        if format == "BF16":
            data = (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            data = floats.astype({"F32": np.float32, "F16": np.float16}[format]).view(np.uint8)
        return Stored(kind, data.reshape(outputs, -1), inputs)
    data = draw.integers(0, 256, (outputs, kind.row_bytes(inputs)), np.uint8)
    scales = scales_of(draw, (outputs, -(-inputs // kind.block), len(kind.halves)))
    if kind.block == 256:  # each is multiplied by one of up to 127
        scales /= 64
    blocks = data[:, kind.head :].reshape(outputs, -1, kind.size)
    for i, at in enumerate(kind.halves):
        blocks[..., at : at + 2] = scales[..., i : i + 1].astype(np.float16).view(np.uint8)
    if format == "MXFP4":
        blocks[..., 0] = draw.integers(118, 124, blocks.shape[:2])
    if format.startswith("F8"):
        values = data[:, kind.head :].reshape(outputs, -1, kind.size)[..., 4 if format == "F8_BLOCK" else 0 :]
        values[(values & 127) == 127] ^= 1  # NaN
    if format == "F8_BLOCK":
        blocks[..., :4] = scales_of(draw, (*blocks.shape[:2], 1)).view(np.uint8)
    if kind.head:
        data[:, : kind.head] = scales_of(draw, (outputs, 1)).view(np.uint8)
    return Stored(kind, data, inputs)


def scales_of(draw: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    values = draw.choice((-1, 1), shape) * 2 ** draw.uniform(-8, -6, shape)
    return values.astype(np.float32)


def as_computed(x: NDArray[Any], format: str) -> NDArray[np.float64]:
    """The activations that a format's kernel multiplies, after their rounding. x: float32 [rows, inputs]."""
    form = KINDS[format].form
    if form == "float32":
        return x.astype(np.float64)
    if form == "bfloat16":
        bits = x.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
    rows, inputs = x.shape
    padded = np.zeros((rows, -(-inputs // 32), 32), np.float32)
    padded.reshape(rows, -1)[:, :inputs] = x
    largest = np.abs(padded).max(axis=-1, keepdims=True)
    tiny = largest < np.float32(2.0**-121)
    inverse = np.where(tiny, np.float32(0), np.float32(127) / np.where(tiny, np.float32(1), largest))
    codes = np.rint(padded * inverse.astype(np.float32))
    values: NDArray[np.float64] = codes.astype(np.float64) * (largest / np.float32(127)).astype(np.float64)
    return values.reshape(rows, -1)[:, :inputs]
