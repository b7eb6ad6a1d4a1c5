"""How long a draft should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(frozen=True)
class Load:
    """rows: what the step computes without drafts; budget: rows that drafts may add."""

    rows: int
    budget: int


class LengthPolicy(Protocol):
    """Chooses, each step, how many tokens to draft for each request. Zero is a normal answer."""

    def lengths(self, requests: Sequence[Request], load: Load) -> list[int]:
        """One length a request; what does not fit is shortened by the scheduler."""

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """What came of the last drafts."""


@dataclass(frozen=True)
class FixedLength:
    """The same length always, unless the request names its own."""

    length: int

    def lengths(self, requests: Sequence[Request], load: Load) -> list[int]:
        own = [request.params.num_speculative_tokens for request in requests]
        return [self.length if n is None else n for n in own]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """Nothing is learnt."""
