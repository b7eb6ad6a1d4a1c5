"""The tensors of a model, by the names and in the order that each kind of checkpoint has them in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a checkpoint keeps a tensor: rows from `first` on, every `step`-th, and inputs from `column` on,
    of a stored tensor.

    shape: of the stored tensor, where it holds others too; rows are counted over all dimensions but the last.
    turned: it is a stack of matrices [in, out], and rows are counted as if they were [out, in].
    """

    name: str
    first: int = 0
    shape: tuple[int, ...] | None = None
    column: int = 0
    step: int = 1
    turned: bool = False


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model. hf, gguf: where Hugging Face's layout and llama.cpp's keep it.

    less_one: Hugging Face stores it less 1, as norms of Gemma are. pairs: heads whose rows llama.cpp has in
    pairs that rotate together, where Hugging Face has the halves one after the other.
    """

    hf: Place
    gguf: Place
    shape: tuple[int, ...]
    less_one: bool = False
    pairs: int = 0

    def stored_shape(self, place: Place) -> tuple[int, ...]:
        """What the stored tensor's shape has to be."""
        return place.shape or self.shape


@dataclass(frozen=True)
class Scope:
    """A common beginning of names, in both layouts."""

    hf: str
    gguf: str

    def tensor(
        self, hf: str, gguf: str, shape: tuple[int, ...], *, less_one: bool = False, pairs: int = 0
    ) -> Tensor:
        return Tensor(Place(self.hf + hf), Place(self.gguf + gguf), shape, less_one, pairs)

    def slices(self, hf: str, gguf: str, rows: tuple[int, ...], *columns: int) -> tuple[Tensor, ...]:
        """Tensors of so many rows each, which both layouts store as one."""
        stored, first, found = (sum(rows), *columns), 0, []
        for count in rows:
            places = Place(self.hf + hf, first, stored), Place(self.gguf + gguf, first, stored)
            found.append(Tensor(*places, (count, *columns)))
            first += count
        return tuple(found)
