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
    which is all mass on the token. confidences: one a token of the chain, or none at all. chances: the
    drafter's own probability of each token, before sampling parameters, for requests that tell it; none where
    it has no probabilities, and of the first tokens alone where another drafter without them went on.
    sources: of each token of the chain, which drafter it comes from, 0 for a grammar. steps: tokens that the
    drafter said for those of the chain, where it has a vocabulary of its own; 0 where they are the same."""

    tokens: tuple[int, ...] = ()
    probs: NDArray[np.float64] | None = None
    confidences: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()
    parents: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    steps: int = 0

    @property
    def source(self) -> int:
        """The drafter that began it."""
        return self.sources[0] if self.sources else 0

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

    @property
    def begun(self) -> int:
        """Tokens of the chain that come from the drafter that began it."""
        return len(self.span(self.source)) if self.sources else self.depth

    def span(self, source: int) -> range:
        """The tokens of the chain that come from a drafter, where it drafted without a break."""
        if source not in self.sources:
            return range(0)
        first = last = self.sources.index(source)
        while last < len(self.sources) and self.sources[last] == source:
            last += 1
        return range(first, last)

    def then(self, more: Draft) -> Draft:
        """This draft with another one, which is a chain, behind its own chain."""
        depth, added = self.depth, len(more.tokens)
        beside = self.parents[depth:]
        return Draft(
            (*self.tokens[:depth], *more.tokens, *self.tokens[depth:]),
            _joined(self, more),
            self._sure() + more._sure() if self.confidences or more.confidences else (),
            self.chances + more.chances if len(self.chances) == depth else self.chances,
            (*range(-1, depth + added - 1), *beside) if beside else (),
            self.sources + more.sources,
            self.steps,
        )

    def _sure(self) -> tuple[float, ...]:
        """The confidences; a drafter that tells none counts as sure."""
        return self.confidences or (1.0,) * self.depth

    def is_last(self, number: int) -> bool:
        """Whether no token follows this one."""
        return number not in self.parents if self.parents else number == len(self.tokens) - 1


def _joined(first: Draft, more: Draft) -> NDArray[np.float64] | None:
    """The distributions of two drafts that are chains, one behind the other."""
    known = [draft.probs for draft in (first, more) if draft.probs is not None]
    if not known:
        return None
    vocab = known[0].shape[1]
    return np.concatenate([_distributions(draft, vocab) for draft in (first, more)])


def _distributions(draft: Draft, vocab: int) -> NDArray[np.float64]:
    """What the tokens were drawn from, [len(tokens), vocab]."""
    if draft.probs is not None:
        return draft.probs
    certain = np.zeros((len(draft.tokens), vocab))
    certain[np.arange(len(draft.tokens)), draft.tokens] = 1.0
    return certain


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
class Extender(Protocol):
    """What goes on where other drafters of a chain have ended."""

    def extend(
        self, requests: Sequence[Request], begun: Sequence[Sequence[int]], budgets: Sequence[Budget]
    ) -> list[Draft]:
        """A chain after `requests[i].tokens` and the tokens `begun[i]` that others drafted, as far as
        `budgets[i]` goes; empty where there is nothing to add."""


@runtime_checkable
class Linguist(Protocol):
    """A drafter that may not know a request's language."""

    def knows(self, request: Request) -> bool:
        """Whether it seems to; the same whenever it is asked."""


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
