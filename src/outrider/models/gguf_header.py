"""What a GGUF file says before its tensors, and where each of them lies.

The reader of the package gguf keeps a NumPy view for every string, which is 150 MiB for a vocabulary of
49,000 tokens: more than the weights of a small model. This one keeps the strings.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from outrider.errors import ModelError
from outrider.formats.format import Bytes
from outrider.messages import shown
from outrider.models.gguf_magic import MAGIC, reading
from outrider.models.stored import map_file

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9  # types of a value; the others are numbers
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
ALIGNMENT = 32  # of the tensors, unless general.alignment says otherwise
MOST_DIMENSIONS = 4
LENGTH = struct.Struct("<Q")  # of a string
MOST_TENSORS = 2**16
MOST_ELEMENTS = 2**23  # of all arrays together: Python's numbers take up to 32 times the file's bytes
REPACKED = {
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Types that older versions of llama.cpp wrote for some processors, and none reads any more."""


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of a tensor. shape: rows first, unlike the file's; nbytes: in the file."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


@dataclass(frozen=True)
class GGUFHeader:
    """metadata: values by key, arrays as lists; tensors: in the order of the header; data: the whole file, as
    uint8 of a mapping."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data: Bytes


def read_header(path: Path) -> GGUFHeader:
    """Raises ModelError for a file that is not GGUF, not ours to read, or contradicts itself."""
    with reading(path):
        return _read(path, map_file(path))


def _read(path: Path, data: Bytes) -> GGUFHeader:
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise ValueError("its magic number is not that of GGUF")
    _check_version(cursor.take(4), path)
    tensor_count, value_count = cursor.number("Q"), cursor.number("Q")
    if tensor_count > MOST_TENSORS:
        raise ValueError(f"it is to have {tensor_count} tensors; {MOST_TENSORS} are the most")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"the key {shown(key)} stands there twice")
        try:
            metadata[key] = cursor.value(cursor.number("I"))
        except ValueError as error:
            raise ValueError(f"metadata {shown(key)}: {error}") from error
    described = [_described(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment = {shown(alignment)}; it has to be a power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in described:
        if name in tensors:
            raise ValueError(f"tensor {shown(name)} is there twice")
        tensors[name] = TensorInfo(name, kind, shape, start + offset, _nbytes(name, shape, kind))
    _check_places(tensors, len(data), alignment)
    return GGUFHeader(path, metadata, tensors, data)


def _check_version(stored: memoryview, path: Path) -> None:
    """Such a file is whole; it is its form that is not supported."""
    version, swapped = (int.from_bytes(stored, order) for order in ("little", "big"))
    if swapped in (1, *VERSIONS):
        raise ModelError(
            f"{path} cannot be used: it is big-endian; convert it with gguf_convert_endian.py of llama.cpp"
        )
    if version not in VERSIONS:
        raise ModelError(
            f"{path} cannot be used: it is of version {version}; supported are "
            f"{', '.join(map(str, VERSIONS))}"
        )


def _described(cursor: _Cursor) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    """Name, shape, type, and offset from where the tensors begin."""
    name = cursor.string()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(
            f"tensor {shown(name)} has {dimensions} dimensions; there can be 1 to {MOST_DIMENSIONS}"
        )
    shape = tuple(reversed([cursor.number("Q") for _ in range(dimensions)]))
    kind, offset = cursor.number("I"), cursor.number("Q")
    try:
        return name, shape, GGMLQuantizationType(kind), offset
    except ValueError:
        if kind in REPACKED:
            plain = "_".join(REPACKED[kind].split("_")[:2])
            raise ValueError(
                f"tensor {shown(name)} is of type {REPACKED[kind]}, which llama.cpp has given up; get the "
                f"model as {plain}"
            ) from None
        raise ValueError(f"tensor {shown(name)} is of type number {kind}, which is not known") from None


def _nbytes(name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    if not all(shape) or shape[-1] % block:
        raise ValueError(f"tensor {shown(name)} of shape {shape} does not divide into blocks of {block}")
    return math.prod(shape) // int(block) * int(size)


def _check_places(tensors: dict[str, TensorInfo], length: int, alignment: int) -> None:
    """Every tensor lies in the file, where the alignment allows, and over no other one."""
    for tensor in tensors.values():
        end = tensor.offset + tensor.nbytes
        if end > length:
            raise ValueError(f"tensor {shown(tensor.name)} ends at byte {end}; the file has {length}")
        if tensor.offset % alignment:
            raise ValueError(
                f"tensor {shown(tensor.name)} begins at byte {tensor.offset}, which is not a multiple of "
                f"general.alignment = {alignment}"
            )
    for first, second in pairwise(sorted(tensors.values(), key=lambda tensor: tensor.offset)):
        if first.offset + first.nbytes > second.offset:
            raise ValueError(f"tensors {shown(first.name)} and {shown(second.name)} overlap")


class _Cursor:
    """Reads values one after the other. Nothing is taken on trust: a count that the file cannot hold ends in
    an error when the file ends, not in an allocation."""

    def __init__(self, data: Bytes) -> None:
        self._data = memoryview(data)  # type: ignore[arg-type]
        self._elements = 0  # of the arrays so far
        self.at = 0

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self.at:
            raise ValueError(f"{size} bytes are to follow byte {self.at}; the file has {len(self._data)}")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, format: str) -> Any:
        return struct.unpack("<" + format, self.take(struct.calcsize("<" + format)))[0]

    def string(self) -> str:
        begin = self.at
        try:
            return str(self.take(LENGTH.unpack(self.take(8))[0]), "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the string at byte {begin} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._array(self.number("I"), self.number("Q"))
        if kind not in NUMBERS:
            raise ValueError(f"it is of type {kind}; there is no such type")
        return self.number(NUMBERS[kind])

    def _array(self, of: int, count: int) -> list[Any]:
        self._elements += count
        if self._elements > MOST_ELEMENTS:
            raise ValueError(
                f"an array of {count} elements makes {self._elements} in all; {MOST_ELEMENTS} are the most"
            )
        if of in NUMBERS:
            size = struct.calcsize("<" + NUMBERS[of])
            return list(struct.unpack(f"<{count}{NUMBERS[of]}", self.take(count * size)))
        if of == ARRAY:
            raise ValueError("it is an array of arrays, which llama.cpp does not read either")
        return self._strings(count) if of == STRING else [self.value(of) for _ in range(count)]

    def _strings(self, count: int) -> list[str]:
        """What `count` calls of `string` return, in a third of the time: a vocabulary has some 100,000."""
        data, size, at = self._data, len(self._data), self.at
        strings: list[str] = []
        try:
            for _ in range(count):
                begin = at + 8  # bytes of a length
                end = begin + int.from_bytes(data[at:begin], "little")
                if end > size:
                    break
                strings.append(str(data[begin:end], "utf-8"))
                at = end
        except UnicodeDecodeError:
            pass
        self.at = at
        return strings + [self.string() for _ in range(count - len(strings))]  # the first of them raises
