"""What a head learns from: the tokens that the target says, with the states that it said them from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.adapting.messages import Passage
from outrider.engine.request import Request
from outrider.faults import Faults
from outrider.formats.floats import float32_to_bfloat16

logger = logging.getLogger(__name__)

LONGEST = 512  # positions of a passage
CONTEXT = 64  # positions of a prompt before the target's own words
SHORTEST = 8  # words of the target in a passage, for which it is kept


@dataclass
class _Window:
    """The latest states of a request, from position `first` on."""

    first: int
    pieces: list[NDArray[np.uint16]] = field(default_factory=list)
    count: int = 0

    @property
    def end(self) -> int:
        return self.first + self.count

    def add(self, states: Any) -> None:
        self.pieces.append(float32_to_bfloat16(states))
        self.count += len(states)


class Traffic:
    """Reads the target's states, and hands out passages of what it says.

    A request with a salt is left out: a head is shared by all, and what it drafts well would tell others, by
    their timing, what it was taught. Of a prompt no more is kept than what is just before the answer. keep:
    is called with each passage, in the engine's thread.
    """

    def __init__(self, state_layers: Sequence[int], keep: Callable[[Passage], None]) -> None:
        self.state_layers = tuple(state_layers)
        self._keep = keep
        self._windows: dict[Request, _Window] = {}
        self._stopped = False
        self._faults = Faults(logger)

    def read(self, request: Request, first: int, states: Any) -> None:
        """See `outrider.drafting.base.StateReader`. A fault costs what would have been learnt."""
        if not self._stopped and request.params.cache_salt is None:
            with self._faults.tolerated("what the target said could not be kept to learn from"):
                self._read(request, first, states)

    def end(self, request: Request) -> None:
        """A request that was preempted is read again from its beginning."""
        window = self._windows.pop(request, None)
        if window is not None and request.finish_reason not in (None, "error"):
            self._hand_out(request, window)

    def stop(self) -> None:
        """Keep nothing any more."""
        self._stopped = True
        self._windows.clear()

    def _read(self, request: Request, first: int, states: Any) -> None:
        skipped = max(0, request.prompt_length - CONTEXT - first)
        if skipped >= len(states):
            return
        first += skipped
        window = self._windows.get(request)
        if window is None or window.end != first:  # the prefix cache had what is before
            window = self._windows[request] = _Window(first)
        if window.count + len(states) - skipped > LONGEST:
            self._hand_out(request, window)
            window = self._windows[request] = _Window(first)
        window.add(states[skipped:])

    def _hand_out(self, request: Request, window: _Window) -> None:
        count = min(window.count, len(request.tokens) - window.first)  # a draft may have gone beyond the end
        own = max(1, request.prompt_length - window.first)
        if count - own >= SHORTEST:
            tokens = np.array(request.tokens[window.first : window.first + count], np.int32)
            self._keep(Passage(tokens, own, np.concatenate(window.pieces)[:count]))
