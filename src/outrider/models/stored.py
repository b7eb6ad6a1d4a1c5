"""Tensors as files hold them, which are read when they are used."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from outrider.cache.pages import release_pages
from outrider.errors import ModelError
from outrider.formats.format import Bytes, Floats, Format
from outrider.formats.weight import Weight
from outrider.messages import shown


class StoredTensor(Protocol):
    """A tensor of a file, or one that a quantisation scheme makes of several.

    shape: rows first. format: of `weight()`. Raises ModelError for a tensor that is no weight.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def format(self) -> Format: ...

    @property
    def file(self) -> Path: ...

    def weight(self) -> Weight:
        """A matrix; a stack of matrices as one above the other, a vector as a row."""

    def floats(self) -> Floats:
        """float32, in `shape`."""

    def release(self) -> None:
        """Give back the memory of what was read from the file, which is read again if it is asked for."""


@dataclass(frozen=True)
class MappedTensor:
    """A tensor whose bytes are used as they lie in a mapped file. data: uint8 [rows, bytes of a row]."""

    name: str
    shape: tuple[int, ...]
    format: Format
    file: Path
    data: Bytes

    def weight(self) -> Weight:
        return Weight(self.format, self.data, inputs_of(self.shape))

    def floats(self) -> Floats:
        return self.weight().dequantize().reshape(self.shape)

    def release(self) -> None:
        release_pages(self.data)


@dataclass(frozen=True)
class MadeTensor:
    """A tensor that is made of stored ones whenever it is asked for.

    make: its weight, of `format`. sources: the bytes of the files that `make` reads.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    file: Path
    make: Callable[[], Weight]
    sources: Sequence[Bytes]

    def weight(self) -> Weight:
        return self.make()

    def floats(self) -> Floats:
        return self.make().dequantize().reshape(self.shape)

    def release(self) -> None:
        for data in self.sources:
            release_pages(data)


@dataclass(frozen=True)
class UnreadTensor:
    """A tensor that is no weight, which is well as long as the model has no use for it.

    said: what is wrong with it, for the error that is raised where it is used after all.
    """

    name: str
    shape: tuple[int, ...]
    file: Path
    said: str

    @property
    def format(self) -> Format:
        raise self._error()

    def weight(self) -> Weight:
        raise self._error()

    def floats(self) -> Floats:
        raise self._error()

    def release(self) -> None:
        """Nothing was read."""

    def _error(self) -> ModelError:
        return ModelError(f"{self.file}: tensor {shown(self.name)} {self.said}")


def map_file(path: Path) -> Bytes:
    """uint8 [bytes of the file], which are read as they are used. Raises OSError, and ValueError for an empty
    file."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def inputs_of(shape: tuple[int, ...]) -> int:
    """The length of a row; one for a single number."""
    return shape[-1] if shape else 1
