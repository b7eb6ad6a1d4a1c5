"""The rows of one forward pass, laid out in tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from outrider.ops.span import Span


@dataclass(frozen=True)
class Batch:
    """Ragged rows of several requests; request i owns rows `offsets[i]:offsets[i + 1]`.

    tokens, positions: int64 [rows].
    slots: for each group of layers int64 [rows]; a slot is where a row's K and V go in the cache.
    contexts: for each group int64, one tensor a request: the slots of its positions 0 .. end - 1. A position
    that no row sees has the slot of the request's first row, which is written before it is read.
    logit_rows: int64 [n]; the rows whose logits are wanted, request by request.
    spans: those that were laid out.
    """

    tokens: Tensor
    positions: Tensor
    slots: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    contexts: tuple[tuple[Tensor, ...], ...]
    logit_rows: Tensor
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, spans: Sequence[Span], block_size: int, device: torch.device) -> Batch:
        """Lay the spans out one after the other."""
        offsets = (0, *accumulate(len(span.tokens) for span in spans))
        contexts = tuple(
            tuple(_context(table, span, block_size) for span, table in zip(spans, tables, strict=True))
            for tables in zip(*(span.tables for span in spans), strict=True)
        )

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts)).to(device)

        return cls(
            tokens=torch.tensor(list(chain.from_iterable(s.tokens for s in spans)), device=device),
            positions=join([torch.tensor(s.positions) for s in spans]),
            slots=tuple(
                join([slots[s.start :] for s, slots in zip(spans, of_group, strict=True)])
                for of_group in contexts
            ),
            offsets=offsets,
            contexts=tuple(tuple(slots.to(device) for slots in of_group) for of_group in contexts),
            logit_rows=join(
                [torch.arange(end - s.logit_rows, end) for s, end in zip(spans, offsets[1:], strict=True)]
            ),
            spans=tuple(spans),
        )

    @property
    def rows(self) -> int:
        return self.offsets[-1]


def _context(table: Sequence[int], span: Span, block_size: int) -> Tensor:
    """The slots of a span's positions in the caches of one group."""
    slots = (torch.tensor(table)[:, None] * block_size + torch.arange(block_size)).flatten()[: span.end]
    return torch.where(slots < 0, slots[span.start], slots)
