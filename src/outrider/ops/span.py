"""The rows that one request adds to a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """The rows that one request adds to a forward pass.

    tokens: the tokens to compute, one row each.
    start: the position of the first of them; K and V of all earlier positions are in the cache.
    tables: the request's block tables, one a group of layers, each long enough for `start + len(tokens)`
    positions. Negative entries stand for blocks that none of the rows sees; they are not read.
    logit_rows: how many rows, counted from the last, need logits.
    parents: of a tree of tokens, which are the last of the span: for each the one that it follows, by its
    number in the tree, or -1 for the token before the tree. Empty where each follows the one before. states:
    of layers that keep states, the slots of those after the row that is kept at the place before. That at
    `start` is read, unless `start` is 0, and those after rows of the span are written. A row that a row of a
    tree follows, other than the one behind it, needs a slot: the other one begins with the states in it."""

    tokens: Sequence[int]
    start: int
    tables: tuple[Sequence[int], ...]
    logit_rows: int
    states: Mapping[int, int] = field(default_factory=dict)
    parents: Sequence[int] = ()

    @property
    def state(self) -> int | None:
        """The slot of the states before the first row; None: they are zero."""
        return self.states[self.start] if self.start else None

    @property
    def new_states(self) -> dict[int, int]:
        """The slots of the states after rows of the span, by the rows' numbers."""
        ends = range(self.start + 1, self.end + 1)
        return {row: self.states[end] for row, end in enumerate(ends) if end in self.states}

    @property
    def end(self) -> int:
        """The first place of the tables behind the rows: row i is kept at `start + i`."""
        return self.start + len(self.tokens)

    @property
    def follows(self) -> list[int]:
        """The row that each row follows, by its number; -1 for the first."""
        trunk = len(self.tokens) - len(self.parents)
        return [*range(-1, trunk - 1), *(trunk + parent for parent in self.parents)]

    @property
    def positions(self) -> list[int]:
        """The position of each row: tokens of a tree that follow the same one have the same."""
        positions = list[int]()
        for before in self.follows:
            positions.append(positions[before] + 1 if before >= 0 else self.start)
        return positions
