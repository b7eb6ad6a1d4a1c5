"""The target's hidden states, written down while it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.engine.request import Request


@dataclass(frozen=True)
class Recording:
    """One sequence. tokens: those whose states are known; own: where the target's own words begin; states:
    bfloat16 [len(tokens), layers * hidden]."""

    tokens: tuple[int, ...]
    own: int
    states: Tensor


class StateRecorder:
    """Reads the states of every request; `take` hands out those of the requests that have finished.

    For an engine without a prefix cache, where every position is computed.
    """

    def __init__(self, state_layers: Sequence[int]) -> None:
        self.state_layers = tuple(state_layers)
        self._parts: dict[Request, list[Tensor]] = {}
        self._finished: list[Recording] = []

    def read(self, request: Request, first: int, states: Any) -> None:
        """states: NumPy's or PyTorch's, whichever the backend hands out; they are copied."""
        rounded = torch.as_tensor(states).to(torch.bfloat16, copy=True)
        self._parts.setdefault(request, []).append(rounded)

    def end(self, request: Request) -> None:
        parts = self._parts.pop(request, None)
        if parts is not None and request.finish_reason is not None:
            states = torch.cat(parts)[: len(request.tokens)]
            tokens = tuple(request.tokens[: len(states)])
            self._finished.append(Recording(tokens, request.prompt_length, states))

    def take(self) -> list[Recording]:
        finished, self._finished = self._finished, []
        return finished
