"""The rows of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """The rows that one request adds to a forward pass.

    tokens: the tokens to compute, one row each.
    start: the position of the first of them; K and V of all earlier positions are in the cache.
    blocks: the request's block table, long enough for `start + len(tokens)` positions.
    logit_rows: how many rows, counted from the last, need logits.
    """

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    logit_rows: int

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class Batch:
    """Ragged rows of several requests; request i owns rows `offsets[i]:offsets[i + 1]`.

    tokens, positions, slots: int64 [rows]; a slot is where a row's K and V go in the cache.
    contexts: int64, one tensor a request: the slots of its positions 0 .. end - 1.
    logit_rows: int64 [n]; the rows whose logits are wanted, request by request.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    offsets: tuple[int, ...]
    contexts: tuple[Tensor, ...]
    logit_rows: Tensor

    @classmethod
    def of(cls, spans: Sequence[Span], block_size: int, device: torch.device) -> Batch:
        """Lay the spans out one after the other."""
        offsets = (0, *accumulate(len(span.tokens) for span in spans))
        within = torch.arange(block_size)
        contexts = tuple(
            (torch.tensor(span.blocks)[:, None] * block_size + within).flatten()[: span.end] for span in spans
        )

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts)).to(device)

        return cls(
            tokens=torch.tensor(list(chain.from_iterable(s.tokens for s in spans)), device=device),
            positions=join([torch.arange(s.start, s.end) for s in spans]),
            slots=join([slots[s.start :] for s, slots in zip(spans, contexts, strict=True)]),
            offsets=offsets,
            contexts=tuple(slots.to(device) for slots in contexts),
            logit_rows=join(
                [torch.arange(end - s.logit_rows, end) for s, end in zip(spans, offsets[1:], strict=True)]
            ),
        )

    @property
    def rows(self) -> int:
        return self.offsets[-1]
