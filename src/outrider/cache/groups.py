"""Layers that attend equally far form a group, which has block tables and a pool of blocks of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Layers of a model that have the same window.

    window: positions that a row sees, its own among them; None: all before it. layers: their numbers among
    the layers that have a cache, ascending.
    """

    window: int | None
    layers: tuple[int, ...]


def groups_of(windows: Sequence[int | None]) -> tuple[Group, ...]:
    """The groups of layers with these windows, in the order of each group's first layer."""
    return tuple(
        Group(window, tuple(layer for layer, own in enumerate(windows) if own == window))
        for window in dict.fromkeys(windows)
    )


def blocks_behind(window: int | None, position: int, block_size: int) -> int:
    """The first blocks of a request that no row from `position` on sees: the block of the first position that
    one sees is the first to be kept."""
    return 0 if window is None else max(0, position - window + 1) // block_size
