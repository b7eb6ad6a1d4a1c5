"""What a GGUF file says before its tensors, and where each of them lies.

The reader of the package gguf keeps a NumPy view for every string, which is 150 MiB for a vocabulary of
49,000 tokens: more than the weights of a small model. This one keeps the strings.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9  # types of a value; the others are numbers
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
ALIGNMENT = 32  # of the tensors, unless general.alignment says otherwise
BYTE: np.dtype[Any] = np.dtype(np.uint8)
FLOATS: dict[GGMLQuantizationType, np.dtype[Any]] = {
    GGMLQuantizationType.F32: np.dtype("<f4"),
    GGMLQuantizationType.F16: np.dtype("<f2"),
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file. shape: rows first, unlike the file's; nbytes: in the file."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    mapping: mmap.mmap

    def read(self, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Rows first..last as they are stored: [rows, columns] of floats, or uint8 [rows, bytes of a row]; a
        vector as a whole."""
        kind: np.dtype[Any] = FLOATS.get(self.type, BYTE)
        rows = self.shape[0] if len(self.shape) > 1 else 1
        width = self.nbytes // rows // kind.itemsize
        count = (rows if last is None else min(last, rows)) - first
        begin = self.offset + first * width * kind.itemsize
        data: NDArray[Any] = np.frombuffer(self.mapping, dtype=kind, count=count * width, offset=begin)
        return data.reshape(count, width) if len(self.shape) > 1 else data

    def release(self) -> None:
        """Give the memory of what was read back; it is read from the file again if it is asked for."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin = self.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, begin, self.offset + self.nbytes - begin)


@dataclass(frozen=True)
class GGUFHeader:
    """metadata: values by key, arrays as lists; tensors: by name."""

    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def read_header(path: Path) -> GGUFHeader:
    """Raises ValueError, struct.error or OSError for a file that is not GGUF, or is shorter than it says."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    cursor = _Cursor(mapping)
    if cursor.take(4) != MAGIC:
        raise ValueError("its magic number is not that of GGUF")
    version = cursor.number("I")
    if version not in VERSIONS:
        raise ValueError(f"it is of version {version}; supported are {', '.join(map(str, VERSIONS))}")
    tensor_count, value_count = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"the key {key!r} stands there twice")
        metadata[key] = cursor.value(cursor.number("I"))
    described = [_described(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment = {alignment!r}; it has to be a power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in described:
        block, size = GGML_QUANT_SIZES[kind]
        if name in tensors:
            raise ValueError(f"tensor {name!r} is there twice")
        if not shape or shape[-1] % block:
            raise ValueError(f"tensor {name!r} of shape {shape} does not divide into blocks of {block}")
        nbytes = math.prod(shape) // block * size
        if start + offset + nbytes > len(mapping):
            raise ValueError(
                f"tensor {name!r} ends at byte {start + offset + nbytes}; the file has {len(mapping)}"
            )
        tensors[name] = StoredTensor(name, kind, shape, start + offset, nbytes, mapping)
    return GGUFHeader(metadata, tensors)


def _described(cursor: _Cursor) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    """Name, shape, type, and offset from where the tensors begin."""
    name = cursor.string()
    shape = tuple(reversed([cursor.number("Q") for _ in range(cursor.number("I"))]))
    return name, shape, GGMLQuantizationType(cursor.number("I")), cursor.number("Q")


class _Cursor:
    """Reads values one after the other. Nothing is taken on trust: a count that the file cannot hold ends in
    an error when the file ends, not in an allocation."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._mapping) - self.at:
            raise ValueError(f"{size} bytes are to follow byte {self.at}; the file has {len(self._mapping)}")
        self.at += size
        return self._mapping[self.at - size : self.at]

    def number(self, format: str) -> Any:
        return struct.unpack("<" + format, self.take(struct.calcsize("<" + format)))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, count = self.number("I"), self.number("Q")
            if of in NUMBERS:
                size = struct.calcsize("<" + NUMBERS[of])
                return list(struct.unpack(f"<{count}{NUMBERS[of]}", self.take(count * size)))
            return [self.value(of) for _ in range(count)]
        if kind not in NUMBERS:
            raise ValueError(f"a value is of type {kind}; there is no such type")
        return self.number(NUMBERS[kind])
