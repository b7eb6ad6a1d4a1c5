"""What a model takes: its weights, its cache, and what a pass needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.cache.division import Size
from outrider.models.model import Model
from outrider.models.runner import Cached, group_sizes
from outrider.ops.shapes import AttentionShape
from outrider.planning.ledger import Ledger
from outrider.planning.passes import PassSize


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model or a drafter.

    weights: that stay; peak: the most that loading takes, what stays of it counted; groups: of K and V in the
    cache blocks of each group of layers, and of slots for states; position: kept for each position of a
    request beside these; passing: that a forward pass of the planned size needs; read: of the weights, that a
    pass over one row reads.
    """

    weights: int = 0
    peak: int = 0
    groups: tuple[Size, ...] = ()
    position: int = 0
    passing: int = 0
    read: int = 0


def model_footprint(model: Model, ledger: Ledger, size: PassSize, block_size: int) -> Footprint:
    """The footprint of a decoder with a paged cache of its own, which was loaded into a ledger."""
    tree = model.tree
    # A pass looks tokens up in a table, and reads it whole only where it is the output layer.
    unread = sum(model.packed(table).nbytes for table in tree.looked_up)
    for experts in tree.mixtures:
        left = experts.routing.count - experts.routing.chosen
        unread += sum(model.packed(stack).nbytes for stack in experts.stacks) * left // experts.routing.count
    return footprint_of(
        model, ledger, size, block_size, width=tree.width, vocab=tree.vocab_size, unread=unread
    )


def footprint_of(
    model: Cached, ledger: Ledger, size: PassSize, block_size: int, *, width: int, vocab: int, unread: int = 0
) -> Footprint:
    """The footprint of a model that was loaded into a ledger.

    width: numbers of a row that a pass holds at once, beside attention; vocab: of its logits; unread: bytes
    of weights that a pass over one row does not read, as most of a table of tokens.
    """
    return Footprint(
        weights=ledger.stays,
        peak=ledger.peak,
        groups=group_sizes(model, block_size, size.ahead, size.drafted),
        passing=passing_of(ledger, size, model.shapes, width=width, vocab=vocab),
        read=ledger.stays - unread,
    )


def passing_of(
    ledger: Ledger, size: PassSize, shapes: Sequence[AttentionShape], *, width: int, vocab: int
) -> int:
    """Bytes that a pass needs. shapes: of attention; the rest: see `footprint_of`."""
    rows = 4 * size.rows * width + ledger.workspace(shapes, size)
    return rows + 4 * size.logit_rows * vocab + ledger.choosing(vocab, size.logit_rows)
