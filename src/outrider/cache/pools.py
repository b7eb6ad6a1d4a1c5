"""The pools of a model as one: each group of its layers has blocks of its own, and states have slots."""

from __future__ import annotations

from collections.abc import Sequence

from outrider.cache.pool import BlockPool


class Pools:
    """The pools of all groups of a model's layers; `of_groups[g]` is that of group g. states: that of the
    slots for states, where layers keep such; a slot counts as a block here.

    A request has a block of every group where it has one of any, so it is the group with the fewest free that
    decides whether there is room.
    """

    def __init__(self, of_groups: Sequence[BlockPool], states: BlockPool | None = None) -> None:
        self.of_groups = tuple(of_groups)
        self.states = states
        self.all = self.of_groups if states is None else (*self.of_groups, states)

    @property
    def num_blocks(self) -> int:
        """Blocks there are to use, of all pools together."""
        return sum(pool.num_blocks for pool in self.all)

    @property
    def num_free(self) -> int:
        """Blocks that could be handed out, of all pools together."""
        return sum(pool.num_free for pool in self.all)

    @property
    def reserve(self) -> int:
        """Blocks that can be had between `lend` and `reclaim`, of all pools together."""
        return sum(pool.reserve for pool in self.all)

    @property
    def used(self) -> float:
        """The share of blocks in use, of the pool where it is largest. At 1 no request can be extended."""
        return max(1 - pool.num_free / pool.num_blocks for pool in self.all)

    def spare(self, share: float) -> bool:
        """Whether each pool, while its reserve is lent, has besides it this share of its own blocks free."""
        return all(
            pool.num_free >= pool.reserve + share * (pool.num_blocks - pool.reserve) for pool in self.all
        )

    def lend(self) -> None:
        """Make the reserves usable."""
        for pool in self.all:
            pool.lend()

    def reclaim(self) -> bool:
        """Take the reserves back; False, with nothing changed, if a block of one is in use."""
        taken = [pool for pool in self.all if pool.reclaim()]
        if len(taken) == len(self.all):
            return True
        for pool in taken:
            pool.lend()
        return False

    def unpublish(self) -> None:
        """Find nothing by its content any more."""
        for pool in self.all:
            pool.unpublish()
