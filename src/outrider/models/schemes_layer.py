"""Layers whose weight a quantisation scheme stores in several tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outrider.errors import ModelError
from outrider.formats.format import Bytes
from outrider.messages import shown
from outrider.models.shards import RawTensor
from outrider.models.stored import StoredTensor


@dataclass(frozen=True)
class StoredLayer:
    """What the files hold of a layer. name: without '.weight'; parts: by the ends of their names.

    Each method raises ModelError, which names the file and the tensor, where a part is not as it has to be.
    """

    name: str
    parts: Mapping[str, RawTensor]

    @property
    def weight_name(self) -> str:
        return f"{self.name}.weight"

    @property
    def file(self) -> Path:
        return next(iter(self.parts.values())).file

    @property
    def sources(self) -> Sequence[Bytes]:
        return [part.data for part in self.parts.values()]

    def part(self, end: str, *dtypes: str) -> RawTensor:
        """A part that has to be there, of one of these types."""
        found = self.parts.get(end)
        if found is None:
            other = next(iter(self.parts))
            raise ModelError(
                f"{self.file}: tensor '{self.name}.{end}' is missing, though '{self.name}.{other}' is there"
            )
        if found.dtype not in dtypes:
            raise self.error(end, f"is of type {found.dtype}; it has to be {' or '.join(dtypes)}")
        return found

    def matrix(self, end: str, *dtypes: str) -> RawTensor:
        found = self.part(end, *dtypes)
        if len(found.shape) != 2 or not all(found.shape):
            raise self.error(end, f"has shape {found.shape}; it has to be a matrix")
        return found

    def shaped(self, end: str, shape: tuple[int, ...], *dtypes: str) -> RawTensor:
        """A part of a shape that others imply."""
        found = self.part(end, *dtypes)
        if found.shape != shape:
            raise self.error(end, f"has shape {found.shape}; its layer implies {shape}")
        return found

    def error(self, end: str, said: str) -> ModelError:
        return ModelError(f"{self.parts[end].file}: tensor {shown(f'{self.name}.{end}')} {said}")


@dataclass(frozen=True)
class Scheme:
    """How a scheme stores layers.

    parts: ends of the names of what may belong to a layer; make: its weight; None where nothing is quantised.
    A layer of nothing but `weight` is not quantised, unless that is of one of `dtypes`. unread: ends of the
    names of what is stored for computing with activations and K/V that are quantised too. name: as files have
    it; None where nothing is quantised.
    """

    parts: frozenset[str]
    make: Callable[[StoredLayer], StoredTensor] | None = None
    dtypes: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    name: str | None = None

    def is_used(self, tensors: Mapping[str, RawTensor]) -> bool:
        """Whether any layer is quantised."""
        ends = (name.rpartition(".")[2] for name in tensors)
        return not self.parts.isdisjoint(ends) or any(
            tensor.dtype in self.dtypes for tensor in tensors.values()
        )

    def apply(
        self, tensors: Mapping[str, RawTensor], plain: Callable[[RawTensor], StoredTensor]
    ) -> dict[str, StoredTensor]:
        """All tensors by name, the parts of each layer as one weight. plain: what becomes of the others."""
        if self.make is None:
            return {name: plain(tensor) for name, tensor in tensors.items()}
        layers: dict[str, dict[str, RawTensor]] = {}
        made: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            stem, _, end = name.rpartition(".")
            if end in self.parts or end == "weight":
                layers.setdefault(stem, {})[end] = tensor
            elif end not in self.unread:
                made[name] = plain(tensor)
        for stem, parts in layers.items():
            layer, weight = StoredLayer(stem, parts), parts.get("weight")
            if weight is not None and len(parts) == 1 and weight.dtype not in self.dtypes:
                made[layer.weight_name] = plain(weight)
            else:
                made[layer.weight_name] = self.make(layer)
        return made
