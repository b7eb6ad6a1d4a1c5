"""Where the tokens of a stream came from: a field of chunks that is there on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from typing_extensions import TypedDict

from outrider.outputs import Drafted, Increment, Origin, Piece

GRAMMAR = "grammar"
"""Who drafts what a request's grammar leaves no choice but to say."""


class TokenTrace(TypedDict):
    """A token's own part of the chunk's text, which may be empty inside a character."""

    text: str
    source: Origin


class DraftTrace(TypedDict):
    """A verified draft. position: in the output, from 0, where it began; drafter: who began it; drafters: who
    drafted each token; tokens: each by itself; accepted: how many of them stood; probabilities: of the first
    tokens, as far as their drafter has any; null where it has none and without `logprobs`."""

    position: int
    drafter: str
    drafters: list[str]
    tokens: list[str]
    accepted: int
    probabilities: list[float] | None


class SpeculationTrace(TypedDict):
    """tokens: those of the chunk; drafts: verified since the last chunk, of those tokens and of such whose
    text is still held back."""

    tokens: list[TokenTrace]
    drafts: list[DraftTrace]


class Tracer:
    """Tells the drafts of one call. drafters: names, in the chain's order; decode: a text for each token."""

    def __init__(self, drafters: Sequence[str], decode: Callable[[Sequence[int]], list[str]]) -> None:
        self._drafters = drafters
        self._decode = decode
        self._waiting: defaultdict[int, list[DraftTrace]] = defaultdict(list)

    def add(self, index: int, increment: Increment) -> None:
        """A step of the sequence of this index."""
        if increment.draft is not None:
            self._waiting[index].append(self._told(increment.draft, increment.accepted))

    def take(self, index: int, pieces: Sequence[Piece]) -> SpeculationTrace:
        """Of a chunk with these pieces. Each draft is told once, no later than its tokens."""
        tokens: list[TokenTrace] = [{"text": piece.text, "source": piece.origin} for piece in pieces]
        return {"tokens": tokens, "drafts": self._waiting.pop(index, [])}

    def _told(self, draft: Drafted, accepted: int) -> DraftTrace:
        drafters = [GRAMMAR if source is None else self._drafters[source] for source in draft.sources]
        return {
            "position": draft.first,
            "drafter": drafters[0],
            "drafters": drafters,
            "tokens": self._decode(draft.tokens),
            "accepted": accepted,
            "probabilities": list(draft.chances) or None,
        }
