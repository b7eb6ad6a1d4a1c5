"""How large a forward pass may be, and what attention takes in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from outrider.ops.shapes import AttentionShape

CHUNK = 128  # positions after which attention may be cut, native/kernels_attention.h
CUT_ROWS = 16  # of a pass, whose attention is cut at most: with more rows there is work for all threads
CUT_MOST = 2**27  # bytes


@dataclass(frozen=True)
class PassSize:
    """The largest forward pass: rows, rows with logits, requests, and positions of the longest one. ahead:
    positions that one request adds at most until its next commit; drafted: those of its draft."""

    rows: int
    logit_rows: int
    requests: int
    positions: int
    ahead: int
    drafted: int


def cut_attention(shapes: Sequence[AttentionShape], size: PassSize) -> int:
    """Bytes of attention that is cut, at each cut, on the native kernels."""
    state = max((4 * shape.heads * (shape.head_dim + 2) for shape in shapes), default=0)
    return min(min(size.rows, CUT_ROWS) * state * ceil(size.positions / CHUNK), CUT_MOST)


def padded_attention(shapes: Sequence[AttentionShape], size: PassSize) -> int:
    """Bytes of keys, values and scores of a group of requests in PyTorch: of a chunk of one request's prompt,
    or of all that have few rows.

    Keys and values are there for each query head, and scores twice, before and after each step.
    """
    from outrider.ops.torch.attention import FEW_ROWS  # PyTorch is there where it is planned for

    few = min(FEW_ROWS, size.rows)
    groups = ((1, size.rows), (size.requests, few))
    return max(
        (
            4
            * requests
            * size.positions
            * (2 * shape.heads * (shape.head_dim + rows) + shape.kv_heads * shape.head_dim)
            for shape in shapes
            for requests, rows in groups
        ),
        default=0,
    )
