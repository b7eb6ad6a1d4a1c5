"""What a request returns. Field names are vLLM's where it has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, NamedTuple

Origin = Literal["draft", "correction", "bonus", "target"]
"""Where a token came from: an accepted draft, the target's correction of one, the bonus after a draft that
stood as a whole, or the target alone where nothing was drafted."""

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True)
class Logprob:
    """logprob: natural logarithm, before any sampling parameter; rank: 1 is the likeliest token."""

    logprob: float
    rank: int
    decoded_token: str


Logprobs = dict[int, Logprob]


@dataclass(frozen=True)
class SpeculationStats:
    """Counts of drafts: how many, their tokens, and how many stood; by position from the first token on."""

    drafts: int = 0
    drafted_by_position: tuple[int, ...] = ()
    accepted_by_position: tuple[int, ...] = ()

    @property
    def drafted(self) -> int:
        return sum(self.drafted_by_position)

    @property
    def accepted(self) -> int:
        return sum(self.accepted_by_position)

    @property
    def acceptance_length(self) -> float:
        """Mean tokens a verified draft yields: accepted ones and the target's own."""
        return 1 + self.accepted / self.drafts if self.drafts else 1.0

    @property
    def acceptance_rate_by_position(self) -> tuple[float, ...]:
        """The share of the tokens drafted at each position that stood (and so all before them did)."""
        return tuple(a / d for a, d in zip(self.accepted_by_position, self.drafted_by_position, strict=True))

    def __add__(self, other: SpeculationStats) -> SpeculationStats:
        def added(a: Iterable[int], b: Iterable[int]) -> tuple[int, ...]:
            return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))

        return SpeculationStats(
            self.drafts + other.drafts,
            added(self.drafted_by_position, other.drafted_by_position),
            added(self.accepted_by_position, other.accepted_by_position),
        )

    @classmethod
    def of_drafts(cls, drafts: Mapping[tuple[int, int], int]) -> SpeculationStats:
        """drafts: how many had so many tokens of which so many stood."""
        positions = range(max((drafted for drafted, _ in drafts), default=0))
        counts = drafts.items()
        return cls(
            sum(drafts.values()),
            tuple(sum(n for (drafted, _), n in counts if drafted > at) for at in positions),
            tuple(sum(n for (_, accepted), n in counts if accepted > at) for at in positions),
        )

    @classmethod
    def of_draft(cls, drafted: int, accepted: int) -> SpeculationStats:
        """The counts of one draft."""
        return cls.of_drafts({(drafted, accepted): 1} if drafted else {})


@dataclass(frozen=True)
class CompletionOutput:
    """One generated sequence. token_ids holds the EOS or stop token that ended it; text does not."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None
    logprobs: tuple[Logprobs, ...] | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    speculation: SpeculationStats

    def finished(self) -> bool:
        """Whether the sequence has ended."""
        return self.finish_reason is not None


@dataclass(frozen=True)
class RequestMetrics:
    """Times of a monotonic clock, in seconds.

    token_times: (time, tokens) of every step that yielded tokens, of the request's first sequence.
    """

    arrival_time: float
    first_scheduled_time: float | None
    first_token_time: float | None
    last_token_time: float | None
    finished_time: float | None
    token_times: tuple[tuple[float, int], ...] = field(repr=False)

    @property
    def time_in_queue(self) -> float | None:
        """From arrival to the first step."""
        return None if self.first_scheduled_time is None else self.first_scheduled_time - self.arrival_time

    @property
    def first_token_latency(self) -> float | None:
        """From arrival to the first token."""
        return None if self.first_token_time is None else self.first_token_time - self.arrival_time

    @property
    def num_generation_tokens(self) -> int:
        """The tokens of the request's first sequence."""
        return sum(tokens for _, tokens in self.token_times)


@dataclass(frozen=True)
class RequestOutput:
    """A request with all its sequences. `prompt_logprobs[0]` is None: nothing precedes the first token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: tuple[Logprobs | None, ...] | None
    outputs: tuple[CompletionOutput, ...]
    finished: bool
    num_cached_tokens: int
    metrics: RequestMetrics
    error: str | None = None


@dataclass(frozen=True)
class EmbeddingOutput:
    """embedding: of length 1."""

    embedding: list[float]


@dataclass(frozen=True)
class EmbeddingRequestOutput:
    """The embedding of a text, and the tokens that it was computed from."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    outputs: EmbeddingOutput
    finished: bool = True


class Piece(NamedTuple):
    """Text that one token added (possibly none yet, inside a UTF-8 character) and where it came from."""

    token_id: int
    text: str
    origin: Origin


@dataclass(frozen=True)
class Drafted:
    """A draft as it was verified, with the tokens that fell.

    first: the place in the output, from 0, that it begins at; sources: of each token, the drafter's place in
    the chain, None for what a grammar forced; chances: the drafter's own probability of each of the first
    tokens, as many as it tells, before sampling parameters; empty where it has none, and where no
    log-probabilities are asked for.
    """

    first: int
    sources: tuple[int | None, ...]
    tokens: tuple[int, ...]
    chances: tuple[float, ...]


@dataclass(frozen=True)
class Increment:
    """What one step added to one sequence. Pieces are held back while they might belong to a stop string."""

    request_id: str
    index: int
    token_ids: tuple[int, ...]
    pieces: tuple[Piece, ...]
    drafted: int
    accepted: int
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    logprobs: tuple[Logprobs, ...] | None = None
    """One a token of `token_ids`, where the request asks for them."""
    draft: Drafted | None = None
    """If there was one, and the request asks for it. Of its tokens `accepted` stood."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)
