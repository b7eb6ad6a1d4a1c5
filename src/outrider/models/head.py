"""What drafts from the target's hidden states, and its passes over a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.cache.store import LayerCache
from outrider.models.runner import Cached, PagedRunner
from outrider.ops.base import Ops, Value
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span


class DraftHead(Cached, Protocol):
    """Row i reads what the target knows at position i and the token after it, and says the token after that;
    while drafting, the head's own state stands in for the target's."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """The target's id of each token that the head can say; [draft vocab], ascending."""

    @property
    def max_position_embeddings(self) -> int:
        """Positions of its cache that it may look at."""

    @property
    def states_width(self) -> int:
        """Numbers of the target's states that it reads at a position."""

    @property
    def width(self) -> int:
        """Numbers of a row that a pass holds at once."""

    def read(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """From the target's states [rows, states_width]: draft logits of the rows that want them, and beside
        them what the head goes on from."""

    def go_on(self, ops: Ops[Value, Any, Any], cache: Sequence[LayerCache]) -> Value:
        """The same from the head's own states [rows, hidden]."""


class HeadRunner(PagedRunner):
    """Drafts with a head over a cache of its own, for a target with a vocabulary of so many tokens. The
    tokens of a span are those after its rows."""

    def __init__(
        self, head: DraftHead, *, num_blocks: int | Sequence[int], block_size: int, vocab: int
    ) -> None:
        # What a head caches at a position depends on the states that it was given, not on tokens alone.
        super().__init__(head, num_blocks=num_blocks, block_size=block_size, prefix_caching=False)
        self._vocab = vocab
        self.exchange(head)

    def exchange(self, head: DraftHead) -> None:
        """Draft with another head of the same shape, on the same backend, over the same cache."""
        self.head = self._paged = head
        words = Words(self._vocab, head.targets)
        self.reads, self.goes_on = self.compile(head.read), self.compile(head.go_on)
        self._read = head.backend.chain(self.reads, self.goes_on, words)
        self._go_on = head.backend.chain(self.goes_on, self.goes_on, words)

    def read(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """Drafts behind the target's states [rows of all spans, width]: `outrider.ops.lane.DraftChain`."""
        return self._read(lanes, states)

    def go_on(self, lanes: Sequence[Lane | Span], states: Any) -> list[Grown]:
        """The same from what drafts go on from, `Grown.state`, [lanes, width]."""
        return self._go_on(lanes, states)
