"""How many tokens of its own a drafter says for one of the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.engine.request import Request

OWN_MEMORY, SHARED_MEMORY = 0.9, 0.99
"""What is kept of earlier drafts at each new one: of a request, and of all."""
USUAL = 4.0
"""Tokens of the target's that the pace of all requests is worth, against those of a request itself, and a
pace of 1 against those of all."""


@dataclass(eq=False)
class DraftPace:
    """Tokens that a drafter said, over those that it offered."""

    said: float
    offered: float
    memory: float

    @property
    def value(self) -> float:
        return self.said / self.offered

    def observe(self, said: int, offered: int) -> None:
        """One more draft."""
        self.said = self.memory * self.said + said
        self.offered = self.memory * self.offered + offered


class Paces:
    """The pace of a drafter, by request: 1 for all where its tokens are the target's.

    A draft model of another vocabulary takes several tokens for one where the text is of a language that it
    hardly knows. What a drafted token costs is that many of its steps.
    """

    def __init__(self) -> None:
        self._shared = DraftPace(USUAL, USUAL, SHARED_MEMORY)
        self._own: dict[Request, DraftPace] = {}

    @property
    def usual(self) -> float:
        """For a request that nobody knows yet."""
        return self._shared.value

    def of(self, request: Request) -> float:
        own = self._own.get(request)
        return self._shared.value if own is None else own.value

    def observe(self, request: Request, said: int, offered: int) -> None:
        """A draft of so many tokens, for which the drafter said so many of its own."""
        own = self._own.get(request)
        if own is None:
            own = self._own[request] = DraftPace(USUAL * self.usual, USUAL, OWN_MEMORY)
        own.observe(said, offered)
        self._shared.observe(said, offered)

    def forget(self, request: Request) -> None:
        self._own.pop(request, None)
