"""Choosing tokens from rows of logits on the device: the launches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from outrider.ops.choice import Choice
from outrider.ops.cuda import choice as kernels
from outrider.ops.cuda.device import launch, send, upload
from outrider.ops.cuda.layout import padded
from outrider.ops.noise import folded
from outrider.ops.torch import choose as reference

TILE = 1024  # tokens of a program
DIGITS = 8  # of 4 bits in a key


@dataclass(frozen=True)
class RowDraw:
    """How the token of one row is chosen. row: of the logits; temperature: 0 for the first of the largest
    logits; min_p, top_k, top_p: see `outrider.ops.choice.Filters`; key: of the noise, position included."""

    row: int
    temperature: float = 0.0
    min_p: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    key: int = 0

    @classmethod
    def of(cls, choice: Choice, first: int) -> list[RowDraw]:
        """Those of a choice, whose rows begin at `first`."""
        rows, filters = range(first, first + choice.rows), choice.filters
        if filters is None:
            return [cls(row) for row in rows]
        offsets = choice.offsets or range(choice.rows)
        how = (filters.temperature, filters.min_p, filters.top_k, filters.top_p)
        return [
            cls(row, *how, folded((choice.position + offset,), choice.key))
            for row, offset in zip(rows, offsets, strict=True)
        ]


@dataclass(frozen=True)
class Draws:
    """How the tokens of some rows are chosen, as arrays of the host, which go on with padding.

    count: draws that there are. vocab: columns that can be chosen. by_k, by_p: whether any row is filtered
    by top-k, by top-p.
    """

    arrays: Mapping[str, NDArray[Any]]
    count: int
    vocab: int
    by_k: bool
    by_p: bool

    @classmethod
    def of(cls, asked: Sequence[RowDraw], vocab: int) -> Draws:
        each = [*asked, *[RowDraw(0)] * (padded(len(asked)) - len(asked))]
        counts = [-float(one.top_k) if one.top_k < vocab else 0.0 for one in each]
        shares = [one.top_p if one.top_p < 1 else 0.0 for one in each]
        floors = [math.log(one.min_p) if one.min_p else -math.inf for one in each]
        arrays = {
            "keys": np.array([one.key for one in each], np.uint64).view(np.int64),
            "shares": np.array(shares),
            "counts": np.array(counts),
            "rows": np.array([one.row for one in each], np.int32),
            "temperatures": np.array([one.temperature for one in each], np.float32),
            "floors": np.array(floors, np.float32),
        }
        return cls(arrays, len(asked), vocab, any(counts), any(shares))


def choose(logits: Tensor, asked: Sequence[RowDraw]) -> Tensor:
    """A column for each, or a `NoToken`: int32 [len(asked)], on the device. logits: float32 [rows, vocab]."""
    draws = Draws.of(asked, logits.shape[1])
    return Choosing(logits, draws, upload(draws.arrays, logits.device)).columns()[: draws.count]


def edited(logits: Tensor, choice: Choice) -> Tensor:
    """See `outrider.ops.torch.choose.edited`; nobody waits for what is sent to the device."""
    return reference.edited(logits, choice, send)


class Choosing:
    """What is known of some rows of logits, float32 [rows, columns], while tokens are chosen from them.

    given: the arrays of the draws on the device. ids: int64 [vocab], the tokens whose noise columns have;
    None: their own. All results have the padding of the draws.
    """

    def __init__(
        self, logits: Tensor, draws: Draws, given: Mapping[str, Tensor], ids: Tensor | None = None
    ) -> None:
        self._logits, self._given, self._ids = logits, given, ids
        self._vocab, self._by_k, self._by_p = draws.vocab, draws.by_k, draws.by_p
        self._blocks = triton.cdiv(self._vocab, TILE)
        self._padded = triton.next_power_of_2(self._blocks)
        self._top, self._why = self._peaks()

    def columns(self, without: Tensor | None = None) -> Tensor:
        """The column of each row; without: int32, columns that cannot be chosen."""
        values, columns = self._room(torch.float32), self._room(torch.int32)
        out = self._room(torch.int32, 1)
        least, _, _ = self._search_k
        last, above, limits = self._search_p
        counts = self._ties if self._by_p else columns
        launch(kernels.pick, self._grid,
            *self._scored, self._given["keys"], columns if self._ids is None else self._ids, least, last,
            above, limits, counts, columns if without is None else without, values, columns, *self._sizes,
            TILE, self._padded, self._by_k, self._by_p, self._ids is not None, without is not None,
        )  # fmt: skip
        launch(kernels.decide, self._grid[:1], values, columns, self._why, out, self._blocks, self._padded)
        return out[:, 0]

    def confidences(self) -> Tensor:
        """The probability of the likeliest token of each row: float32."""
        sums, out = self._room(torch.float32), self._room(torch.float32, 1)
        launch(
            kernels.powers, self._grid, self._logits, self._given["rows"], self._top, sums, *self._sizes, TILE
        )
        launch(kernels.likeliest, self._grid[:1], sums, self._why, out, self._blocks, self._padded)
        return out[:, 0]

    @property
    def _grid(self) -> tuple[int, int]:
        return len(self._given["rows"]), self._blocks

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self._logits.stride(0), self._vocab, self._blocks

    @property
    def _scored(self) -> tuple[Tensor, ...]:
        given = self._given
        return self._logits, given["rows"], self._top, given["temperatures"], given["floors"]

    def _room(self, dtype: torch.dtype, width: int | None = None) -> Tensor:
        size = (len(self._given["rows"]), self._blocks if width is None else width)
        return torch.empty(size, dtype=dtype, device=self._logits.device)

    def _peaks(self) -> tuple[Tensor, Tensor]:
        tops, nans = self._room(torch.float32), self._room(torch.int32)
        top, why = self._room(torch.float32, 1), self._room(torch.int32, 1)
        launch(kernels.peaks, self._grid, self._logits, self._given["rows"], tops, nans, *self._sizes, TILE)
        launch(kernels.peak, self._grid[:1], tops, nans, top, why, self._blocks, self._padded)
        return top, why

    @cached_property
    def _search_k(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._search(self._given["counts"], None, by_mass=False, wanted=self._by_k)

    @cached_property
    def _search_p(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._search(self._given["shares"], self._search_k[0], by_mass=True, wanted=self._by_p)

    def _search(
        self, shares: Tensor, least: Tensor | None, *, by_mass: bool, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last key that is kept, the sum of all larger ones, and the limit that it reaches."""
        found, above = (torch.zeros_like(shares, dtype=torch.int64) for _ in range(2))
        limits = torch.empty_like(shares)
        if not wanted:
            return found, above, limits
        least = torch.zeros_like(found) if least is None else least
        sums = self._room(torch.int64, self._blocks * 16)
        for digit in range(DIGITS):
            shift = 4 * (DIGITS - 1 - digit)
            launch(
                kernels.tally,
                self._grid,
                *self._scored,
                least,
                found,
                sums,
                shares,
                *self._sizes,
                shift,
                TILE,
                by_mass,
            )
            launch(
                kernels.narrow,
                self._grid[:1],
                sums,
                found,
                above,
                limits,
                shares,
                self._blocks,
                digit == 0,
                self._padded,
            )
        return found, above, limits

    @cached_property
    def _ties(self) -> Tensor:
        counts = self._room(torch.int32)
        launch(kernels.ties, self._grid, *self._scored, self._search_p[0], counts, *self._sizes, TILE)
        return counts
