"""The tensors of a model, by the names and in the order that each kind of checkpoint has them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from outrider.formats.format import Floats


@dataclass(frozen=True)
class Place:
    """Where a checkpoint keeps a tensor: `run` rows of every `step`, from row `first` on, and inputs from
    `column` on, of a stored tensor.

    shape: of the stored tensor, where it holds others too; rows are counted over all dimensions but the last.
    turned: it is a stack of matrices [in, out], and rows are counted as if they were [out, in].
    """

    name: str
    first: int = 0
    shape: tuple[int, ...] | None = None
    column: int = 0
    step: int = 1
    run: int = 1
    turned: bool = False

    def rows(self, count: int) -> slice | NDArray[np.int32]:
        """The stored rows of a tensor of `count` rows."""
        if self.run == 1:
            return slice(self.first, self.first + count * self.step, self.step)
        if self.run >= count:
            return slice(self.first, self.first + count, 1)
        numbers = np.arange(count, dtype=np.int32)
        return self.first + numbers // self.run * self.step + numbers % self.run


def parts(name: str, rows: tuple[int, ...], *columns: int, times: int = 1) -> tuple[Place, ...]:
    """The places of tensors that are stored as one: so many rows of each, one after the other, and that so
    many times."""
    step = sum(rows)
    firsts = accumulate(rows, initial=0)
    return tuple(
        Place(name, first, (times * step, *columns), step=step, run=run)
        for first, run in zip(firsts, rows, strict=False)
    )


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model. hf, gguf: where Hugging Face's layout and llama.cpp's keep it.

    from_hf: makes its values of those in Hugging Face's layout; None: they are the same. llama.cpp has them
    as they are computed with. pairs: heads whose rows llama.cpp has in pairs that rotate together, where
    Hugging Face has the halves one after the other. or_hf: where Hugging Face's layout may keep it too.
    """

    hf: Place
    gguf: Place
    shape: tuple[int, ...]
    from_hf: Callable[[Floats], Floats] | None = None
    pairs: int = 0
    or_hf: Place | None = None

    def stored_shape(self, place: Place) -> tuple[int, ...]:
        """What the stored tensor's shape has to be."""
        return place.shape or self.shape


def plus_one(stored: Floats) -> Floats:
    """The weights of norms that are stored less 1, as Gemma's are."""
    return stored + np.float32(1)


@dataclass(frozen=True)
class Scope:
    """A common beginning of names, in both layouts."""

    hf: str
    gguf: str

    def tensor(
        self,
        hf: str | Place,
        gguf: str | Place,
        shape: tuple[int, ...],
        *,
        from_hf: Callable[[Floats], Floats] | None = None,
        pairs: int = 0,
        or_hf: Place | None = None,
    ) -> Tensor:
        """hf, gguf, or_hf: the end of a name, or a place that has it."""
        other = None if or_hf is None else _below(self.hf, or_hf)
        return Tensor(_below(self.hf, hf), _below(self.gguf, gguf), shape, from_hf, pairs, other)

    def slices(
        self, hf: str, gguf: str, rows: tuple[int, ...], *columns: int, times: int = 1
    ) -> tuple[Tensor, ...]:
        """Tensors that both layouts store as one: see `parts`."""
        places = (parts(name, rows, *columns, times=times) for name in (hf, gguf))
        return tuple(
            self.tensor(in_hf, in_gguf, (times * count, *columns))
            for count, in_hf, in_gguf in zip(rows, *places, strict=True)
        )


def _below(begins: str, place: str | Place) -> Place:
    return Place(begins + place) if isinstance(place, str) else replace(place, name=begins + place.name)
