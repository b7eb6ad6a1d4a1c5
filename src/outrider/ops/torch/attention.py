"""Attention of ragged requests over a paged cache, as padded groups for PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from outrider.cache.store import LayerCache
from outrider.ops.base import AttentionShape
from outrider.ops.batch import Batch

FEW_ROWS = 32  # requests with at most this many rows are padded into one group


@dataclass(frozen=True)
class AttentionGroup:
    """Requests computed together, padded to Q rows and L positions each.

    rows: int64 [requests * Q], padding repeats a request's last row; slots: int64 [requests, L];
    mask: [requests, 1, group_heads * Q, L], added to the scores.
    """

    rows: Tensor
    slots: Tensor
    mask: Tensor


def group_requests(
    batch: Batch, shape: AttentionShape, dtype: torch.dtype
) -> tuple[tuple[AttentionGroup, ...], Tensor]:
    """Groups that cover the batch, and for every row its place in their joined output.

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
        for n, i in enumerate(requests):
            start = placed + n * width
            unpad[batch.offsets[i] : batch.offsets[i + 1]] = torch.arange(start, start + lengths[i])
        placed += rows.numel()
        groups.append(_group(batch, requests, rows.to(batch.slots.device), shape, dtype))
    return tuple(groups), unpad.to(batch.slots.device)


def _group(
    batch: Batch, requests: Sequence[int], rows: Tensor, shape: AttentionShape, dtype: torch.dtype
) -> AttentionGroup:
    # Padding is the request's own first slot: its weight is zero, and must not meet the NaN of another.
    slots = pad_sequence([batch.contexts[i] for i in requests], batch_first=True, padding_value=-1)
    slots = torch.where(slots < 0, slots[:, :1], slots)
    keys = torch.arange(slots.shape[1], device=slots.device)
    position = batch.positions[rows][:, :, None]  # [requests, Q, 1]
    visible = keys <= position  # [requests, Q, L]
    if shape.sliding_window is not None:
        visible &= keys > position - shape.sliding_window
    mask = torch.zeros(visible.shape, dtype=dtype, device=slots.device).masked_fill_(~visible, -torch.inf)
    share = shape.heads // shape.kv_heads
    return AttentionGroup(rows=rows.flatten(), slots=slots, mask=mask.repeat(1, share, 1)[:, None])


def attend(q: Tensor, groups: Sequence[AttentionGroup], shape: AttentionShape, cache: LayerCache) -> Tensor:
    """q [rows, heads, head_dim] -> [padded rows, heads, head_dim], the groups one after the other.

    The query heads that share a K/V head are laid along the rows, so that it is read once for all.
    """
    share = shape.heads // shape.kv_heads
    outputs = []
    for group in groups:
        requests = len(group.slots)
        queries = q.index_select(0, group.rows).view(requests, -1, shape.kv_heads, share, shape.head_dim)
        queries = queries.permute(0, 2, 3, 1, 4).flatten(2, 3)  # [requests, kv_heads, share * Q, head_dim]
        keys = cache.keys[group.slots].transpose(1, 2).to(q.dtype)  # [requests, kv_heads, L, head_dim]
        values = cache.values[group.slots].transpose(1, 2).to(q.dtype)
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask)
        out = out.view(requests, shape.kv_heads, share, -1, shape.head_dim)
        out = out.permute(0, 3, 1, 2, 4)  # [requests, Q, kv_heads, share, head_dim]
        outputs.append(out.reshape(-1, shape.heads, shape.head_dim))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]
