"""Attention of ragged requests over a paged cache, as padded groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from outrider.cache.store import LayerCache
from outrider.ops.shapes import AttentionShape
from outrider.ops.span import Span
from outrider.ops.torch.batch import Batch
from outrider.ops.torch.codes import unpacked

FEW_ROWS = 32  # requests with at most this many rows are padded into one group


@dataclass(frozen=True)
class AttentionGroup:
    """Requests computed together, padded to Q rows and L positions each.

    rows: int64 [requests * Q], padding repeats a request's last row; slots: int64 [requests, L];
    visible: [requests, 1, Q, L], the positions that each row sees.
    """

    rows: Tensor
    slots: Tensor
    visible: Tensor


def group_requests(
    batch: Batch, window: int | None, layers: int
) -> tuple[tuple[AttentionGroup, ...], Tensor]:
    """Groups that cover the batch, and for every row its place in their joined output.

    layers: the group of layers by whose block tables it is.

    Long chunks of prompts stand alone, so that nothing is padded to their length.
    """
    lengths = [end - start for start, end in zip(batch.offsets, batch.offsets[1:], strict=False)]
    few = [i for i, length in enumerate(lengths) if length <= FEW_ROWS]
    members = [few] if few else []
    members += [[i] for i, length in enumerate(lengths) if length > FEW_ROWS]

    groups: list[AttentionGroup] = []
    unpad = torch.empty(batch.rows, dtype=torch.int64)
    placed = 0
    for requests in members:
        width = max(lengths[i] for i in requests)
        row_of = torch.arange(width).expand(len(requests), width)
        last = torch.tensor([lengths[i] - 1 for i in requests])
        rows = torch.tensor([batch.offsets[i] for i in requests])[:, None] + row_of.minimum(last[:, None])
        contexts = [batch.contexts[layers][i] for i in requests]
        for n, i in enumerate(requests):
            start = placed + n * width
            unpad[batch.offsets[i] : batch.offsets[i + 1]] = torch.arange(start, start + lengths[i])
        placed += rows.numel()
        groups.append(_group(batch, requests, contexts, rows.to(batch.tokens.device), window))
    return tuple(groups), unpad.to(batch.tokens.device)


def paths(span: Span) -> dict[int, list[int]]:
    """The places of those rows of a span's tree that each of its rows sees, its own among them."""
    trunk = len(span.tokens) - len(span.parents)
    found: dict[int, list[int]] = {}
    for number, parent in enumerate(span.parents):
        found[trunk + number] = [*found.get(trunk + parent, ()), span.start + trunk + number]
    return found


def _group(
    batch: Batch, requests: Sequence[int], contexts: list[Tensor], rows: Tensor, window: int | None
) -> AttentionGroup:
    # Padding is the request's own first slot: its weight is zero, and must not meet the NaN of another.
    slots = pad_sequence(contexts, batch_first=True, padding_value=-1)
    slots = torch.where(slots < 0, slots[:, :1], slots)
    places = torch.arange(slots.shape[1], device=slots.device)
    position = batch.positions[rows][:, :, None]  # [requests, Q, 1]
    visible = places <= position  # [requests, Q, L]
    keys = places.repeat(len(slots), 1)  # the positions of what is kept there
    for n, request in enumerate(requests):
        span, first = batch.spans[request], batch.offsets[request]
        branch = span.end - len(span.parents)
        keys[n, branch : span.end] = batch.positions[
            first + branch - span.start : first + span.end - span.start
        ]
        for row, path in paths(span).items():
            of_row = rows[n] == first + row
            visible[n, of_row, branch:] = False
            visible[n, of_row.nonzero(), torch.tensor(path)] = True
    if window is not None:
        visible &= keys[:, None] > position - window
    return AttentionGroup(rows=rows.flatten(), slots=slots, visible=visible[:, None])


def attend(
    q: Tensor,
    groups: Sequence[AttentionGroup],
    shape: AttentionShape,
    cache: LayerCache,
    sinks: Tensor | None,
) -> Tensor:
    """q [rows, heads, head_dim] -> [padded rows, heads, head_dim], the groups one after the other."""
    share = shape.heads // shape.kv_heads
    outputs = []
    for group in groups:
        requests = len(group.slots)
        queries = (
            q.index_select(0, group.rows).view(requests, -1, shape.heads, shape.head_dim).transpose(1, 2)
        )
        keys, values = (  # [requests, heads, L, head_dim]
            _read(stored[group.slots], q.dtype).transpose(1, 2).repeat_interleave(share, dim=1)
            for stored in (cache.keys, cache.values)
        )
        scores = queries @ keys.transpose(-1, -2) * shape.scale  # [requests, heads, Q, L]
        if shape.soft_cap is not None:
            scores = shape.soft_cap * torch.tanh(scores / shape.soft_cap)
        scores = scores.masked_fill(~group.visible, -torch.inf)
        if sinks is not None:  # a key without a value
            column = sinks.to(scores).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, column], dim=-1)
        weights = scores.softmax(dim=-1)[..., : keys.shape[2]]
        outputs.append((weights @ values).transpose(1, 2).reshape(-1, shape.heads, shape.head_dim))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _read(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """K or V as a cache keeps them."""
    return (unpacked(stored) if stored.dtype == torch.int8 else stored).to(dtype)
