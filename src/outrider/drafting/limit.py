"""How far a draft may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Limit(Protocol):
    """How far one drafter may go with one draft of one step. It is asked position by position, in order."""

    @property
    def length(self) -> int:
        """Tokens at most."""

    @property
    def informed(self) -> bool:
        """Whether confidences matter, which cost something to find out."""

    def take(self, confidence: float | None) -> bool:
        """Whether the next token is worth verifying; otherwise the draft ends before it.

        confidence: how sure the drafter is of the token, from 0 to 1; None where it does not know, or where
        it was not asked to. It must be known before the token is drawn, and so be a function of the text so
        far: dropping a token for what it turned out to be would bias the `standard` and `block` rules.
        """

    def more(self) -> bool:
        """Whether it is worth drafting another token."""


@dataclass(frozen=True)
class Fixed:
    """A length that was set beforehand."""

    length: int
    informed: bool = False

    def take(self, confidence: float | None) -> bool:
        return True

    def more(self) -> bool:
        return True


@dataclass(frozen=True)
class Plan:
    """What one request may draft in one step: a limit for each drafter of the chain, in the chain's order."""

    limits: Sequence[Limit] = ()

    @property
    def length(self) -> int:
        """Rows and blocks to reserve."""
        return max((limit.length for limit in self.limits), default=0)

    def within(self, length: int) -> Plan:
        """The same plan, with at most `length` tokens."""
        return self if self.length <= length else Plan([Capped(limit, length) for limit in self.limits])


@dataclass(frozen=True)
class Capped:
    """A limit for which there is less room than it asks for."""

    limit: Limit
    room: int

    @property
    def length(self) -> int:
        return min(self.limit.length, self.room)

    @property
    def informed(self) -> bool:
        return self.limit.informed

    def take(self, confidence: float | None) -> bool:
        return self.limit.take(confidence)

    def more(self) -> bool:
        return self.limit.more()
