"""The leaves of trees of parts, which are loaded from a checkpoint, and the walks over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Floats
from outrider.formats.weight import Weight
from outrider.loading import Listener, Loading, unheard
from outrider.models.tensors import Tensor
from outrider.ops.base import Backend

Loaded = Mapping[Any, Any]
"""What each leaf became in a backend."""

Rows = NDArray[np.int32]
"""Outputs of a layer, by number."""


class Source(Protocol):
    """Where tensors come from. Raises ModelError for one that is missing or broken."""

    def weight(self, tensor: Tensor) -> Weight:
        """A matrix as it is stored; its bytes are read when it is packed."""

    def floats(self, tensor: Tensor) -> Floats:
        """A tensor of numbers, float32."""

    def release(self, tensor: Tensor) -> None:
        """Give back the memory of the file's pages that were read."""


class Leaf(Protocol):
    """A part that is loaded."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        """What the backend makes of it. loaded: of the leaves before it."""


@dataclass(frozen=True)
class _OneTensor:
    tensor: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.tensor,)


@dataclass(frozen=True)
class Vector(_OneTensor):
    """The weight of a norm, or another vector. heads: that each have a copy of it, one behind the other."""

    heads: int = 1

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        return backend.vector(np.tile(source.floats(self.tensor), self.heads))


class Table(_OneTensor):
    """The embedding table [vocab, hidden]."""

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        return backend.table(source.weight(self.tensor))


@dataclass(frozen=True)
class _Matrices:
    matrices: tuple[Tensor, ...]
    biases: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.matrices, *self.biases)

    def _loaded(self, source: Source) -> tuple[list[Weight], Floats | None]:
        weights = [source.weight(one) for one in self.matrices]
        return weights, np.concatenate([source.floats(one) for one in self.biases]) if self.biases else None


@dataclass(frozen=True)
class Linear(_Matrices):
    """Matrices [out, in] of the same inputs, whose outputs follow each other and are computed in one pass.

    biases: one for each matrix, or none at all. float32: computed in that type, whatever its weights are.
    """

    float32: bool = False

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        return backend.pack(*self._loaded(source), float32=self.float32)

    def some(self, source: Source, backend: Backend) -> Callable[[Rows], Any]:
        """Makes a layer of some outputs of the one matrix, whose file stays open."""
        ((weight,), bias) = self._loaded(source)
        return lambda rows: backend.pack([weight.reordered(rows)], None if bias is None else bias[rows])


class Stack(_Matrices):
    """The same matrix [out, in] of each expert, in their order. biases: one for each, or none at all."""

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        return backend.stack(*self._loaded(source))


@dataclass(frozen=True)
class Tied:
    """The output layer whose weight is the embedding table; own: in a copy, since the table that is there is
    in another format."""

    table: Table
    own: bool = False

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.table.tensors

    def load(self, source: Source, backend: Backend, loaded: Loaded) -> Any:
        table = self.table.load(source, backend, loaded) if self.own else loaded[self.table]
        return backend.tied(table)

    def some(self, source: Source, backend: Backend) -> Callable[[Rows], Any]:
        """As `Linear.some`."""
        weight = source.weight(self.table.tensor)
        return lambda rows: backend.tied(backend.table(weight.reordered(rows)))


LEAVES = (Vector, Linear, Stack, Table, Tied)


def leaves(part: Any) -> Iterator[Leaf]:
    """The leaves of a tree, in the order in which they are loaded."""
    if isinstance(part, LEAVES):
        yield part
    elif isinstance(part, tuple):
        for one in part:
            yield from leaves(one)
    elif is_dataclass(part):
        for field in fields(part):
            yield from leaves(getattr(part, field.name))


def tensors(part: Any) -> Iterator[Tensor]:
    """The tensors of a tree, each once."""
    seen: set[Tensor] = set()
    for leaf in leaves(part):
        for tensor in leaf.tensors:
            if tensor not in seen:
                seen.add(tensor)
                yield tensor


def load(
    part: Any,
    source: Source,
    backend: Backend,
    given: Loaded | None = None,
    *,
    name: str = "",
    listener: Listener = unheard,
) -> dict[Any, Any]:
    """Every leaf of a tree as the backend has it. given: leaves that are there already.

    name: of the model, for the listener, who hears how many of its numbers are packed.
    """
    loaded = dict(given or {})
    missing = list(dict.fromkeys(leaf for leaf in leaves(part) if leaf not in loaded))
    done, total = 0, sum(map(_numbers, missing))
    for leaf in missing:
        listener(Loading(f"packing {name}", done, total))
        loaded[leaf] = leaf.load(source, backend, loaded)
        for tensor in leaf.tensors:
            source.release(tensor)
        done += _numbers(leaf)
    listener(Loading(f"packing {name}", done, total))
    return loaded


def _numbers(leaf: Leaf) -> int:
    return sum(prod(tensor.shape) for tensor in leaf.tensors)
