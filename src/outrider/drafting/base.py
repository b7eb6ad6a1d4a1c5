"""What a drafter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(frozen=True)
class Draft:
    """Proposed tokens of one request.

    probs: the distributions that they were drawn from, float64 [len(tokens), vocab]; None for a
    deterministic guess, which is all mass on the token.
    """

    tokens: tuple[int, ...] = ()
    probs: Tensor | None = None


class Drafter(Protocol):
    """Guesses what the target will say next. A wrong guess costs time and never changes a token.

    Requests are read, never changed. A drafter keeps what it needs by request object and forgets it in
    `end`; a request that it has not seen may turn up in any call of `draft`.
    """

    def draft(self, requests: Sequence[Request], lengths: Sequence[int]) -> list[Draft]:
        """A draft of at most `lengths[i]` tokens after `requests[i].tokens`; length 0 costs nothing."""

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The verdicts on the drafts last returned; `requests[i].tokens` does not hold them yet."""

    def end(self, request: Request) -> None:
        """The request finished or was preempted: free what is kept for it."""


class NoDrafter:
    """Plain decoding: every draft is empty."""

    def draft(self, requests: Sequence[Request], lengths: Sequence[int]) -> list[Draft]:
        return [Draft()] * len(requests)

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """Nothing is learnt."""

    def end(self, request: Request) -> None:
        """Nothing is kept."""
