"""What a drafter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from outrider.ops.budget import Budget
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request
    from outrider.models.runner import ModelRunner


@dataclass(frozen=True)
class Draft:
    """Proposed tokens of one request: a chain, which may have siblings.

    parents: of each token the one that it follows, by its number, or -1 for the request's last token; a
    parent comes before its children, and the first `depth` tokens are a chain. Empty where all are. probs:
    the distributions that they were drawn from, float64 [len(tokens), vocab]; None for a deterministic guess,
    which is all mass on the token. confidences: one a token, or none at all. source: which drafter of the
    chain they come from, 0 for a grammar. chances: the drafter's own probability of each token, before
    sampling parameters, for requests that tell it; none where it has no probabilities."""

    tokens: tuple[int, ...] = ()
    probs: NDArray[np.float64] | None = None
    confidences: tuple[float, ...] = ()
    source: int = 0
    chances: tuple[float, ...] = ()
    parents: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Tokens of the chain; no other path is longer."""
        if not self.parents:
            return len(self.tokens)
        return next((n for n, p in enumerate(self.parents) if p != n - 1), len(self.tokens))

    def before(self, number: int) -> list[int]:
        """The tokens that a token follows, its own at the end."""
        if not self.parents:
            return [*self.tokens[: number + 1]]
        path = []
        while number >= 0:
            path.append(self.tokens[number])
            number = self.parents[number]
        return path[::-1]

    def is_last(self, number: int) -> bool:
        """Whether no token follows this one."""
        return number not in self.parents if self.parents else number == len(self.tokens) - 1


class Drafter(Protocol):
    """Guesses what the target will say next. A wrong guess costs time and never changes a token.

    Requests are read, never changed. A drafter keeps what it needs by request object and forgets it in
    `end`; a request that it has not seen may turn up in any call of `draft`.
    """

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        """A draft after `requests[i].tokens`, as far as `budgets[i]` goes, which is one token at least."""

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The verdicts on the drafts last returned; `requests[i].tokens` does not hold them yet."""

    def end(self, request: Request) -> None:
        """The request finished or was preempted: free what is kept for it."""

    def behind(self, request: Request) -> int:
        """Tokens that it has to read before it can draft for the request, besides the last."""

    def rest(self) -> None:
        """Free all memory that can be had again; the next draft begins anew."""


@runtime_checkable
class CacheReader(Protocol):
    """A drafter that attends to the target's K and V."""

    def attach(self, target: ModelRunner) -> None:
        """Read this target's cache. It comes before the first draft; the tables are those of requests."""


@runtime_checkable
class StateReader(Protocol):
    """What reads the target's hidden states, as a head does that drafts from them."""

    @property
    def state_layers(self) -> Sequence[int]:
        """The layers whose inputs it reads; see `Decoder.forward`."""

    def read(self, request: Request, first: int, states: Any) -> None:
        """The states of committed tokens, [rows, layers * hidden]: `request.tokens[first:]`, and then those
        of the draft that stood, which `request.tokens` does not hold yet. In the backend's own form, and good
        until the next step."""

    def end(self, request: Request) -> None:
        """The request finished or was preempted: free what is kept for it."""
