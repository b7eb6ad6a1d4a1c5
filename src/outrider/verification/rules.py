"""The acceptance rules as the engine uses them: how a draft is drawn, and how it is judged.

Draws use the request's counter-based noise; the rules themselves are the pure functions of `accept`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from outrider.sampling.distribution import NO_TOKEN, Distribution
from outrider.verification.accept import Verdict, block, coupled, standard
from outrider.verification.noise import Noise, Stream


@dataclass(frozen=True)
class Spot:
    """Where in a request's noise a draw stands: `start` tokens were generated when the round began, and
    `offset` drafted since."""

    noise: Noise
    start: int
    offset: int = 0

    def gumbel(self, stream: Stream, count: int, vocab: int, device: torch.device) -> Tensor:
        return self.noise.gumbel(stream, self.start + self.offset, count, vocab, device)

    def of_round(self) -> Spot:
        """The same place in noise that no other round sees."""
        return replace(self, noise=replace(self.noise, round=self.start + 1))


@dataclass(frozen=True)
class SpotDraw:
    """One stream of the noise at a spot. See `outrider.sampling.distribution.Draw`."""

    spot: Spot
    stream: Stream
    ids: None = None

    def __call__(self, rows: int, vocab: int, device: torch.device) -> Tensor:
        return self.spot.gumbel(self.stream, rows, vocab, device)

    def keys(self, rows: int) -> list[int]:
        return self.spot.noise.keys(self.stream, self.spot.start + self.spot.offset, rows)


class Acceptance(Protocol):
    """One rule, from both of its ends."""

    def propose(self, draft: Distribution, spot: Spot) -> tuple[int, Tensor | None]:
        """A draft model's token at one position, and the distribution [vocab] if the rule will need it.

        The token is NO_TOKEN where the draft model has none.
        """

    def judge(self, target: Distribution, draft: Sequence[int], probs: Tensor | None, spot: Spot) -> Verdict:
        """The verdict on `draft` [k] given the target's distributions at k + 1 positions.

        Its last token is NO_TOKEN where the target has none.
        """


class Coupled:
    """The target's token at every position, drawn as plain decoding draws it; a draft stands if it agrees.

    The drafter adds the same noise to its own scores, so that it tends to draw the same token (Gumbel
    coupling; Daliri et al., 2025).
    """

    def propose(self, draft: Distribution, spot: Spot) -> tuple[int, Tensor | None]:
        return _choose(draft, spot, Stream.TOKEN)[0], None

    def judge(self, target: Distribution, draft: Sequence[int], probs: Tensor | None, spot: Spot) -> Verdict:
        return coupled(_choose(target, spot, Stream.TOKEN), draft)


@dataclass(frozen=True)
class Rejection:
    """A rule that keeps the target's distribution, though not its very tokens.

    It may look at noise beyond the tokens that it keeps (`block` does), which tells something about that
    noise; so each round has noise of its own.
    """

    rule: Callable[[Tensor, Tensor, Sequence[int], Tensor, Tensor], Verdict]

    def propose(self, draft: Distribution, spot: Spot) -> tuple[int, Tensor | None]:
        return _choose(draft, spot.of_round(), Stream.DRAFT)[0], draft.probabilities()[0]

    def judge(self, target: Distribution, draft: Sequence[int], probs: Tensor | None, spot: Spot) -> Verdict:
        spot, p = spot.of_round(), target.probabilities()
        if probs is None:  # a deterministic guess: all mass on the drafted token
            drafted = torch.tensor(draft, dtype=torch.int64, device=p.device)[:, None]
            probs = torch.zeros_like(p[: len(draft)]).scatter_(-1, drafted, 1.0)
        uniforms = spot.noise.uniforms(Stream.ACCEPT, spot.start, len(draft)).to(p.device)
        gumbel = spot.gumbel(Stream.RECOVER, len(p), p.shape[1], p.device)
        # Only the draft before the first position that has no token is judged; such rows are NaN throughout.
        end = [*p[:, 0].isnan().tolist(), True].index(True)
        verdict = self.rule(p[: end + 1], probs[:end], draft[:end], uniforms[:end], gumbel)
        return Verdict(end, (*draft[:end], NO_TOKEN)) if verdict.accepted == end else verdict


def _choose(distribution: Distribution, spot: Spot, stream: Stream) -> list[int]:
    return distribution.choose(SpotDraw(spot, stream))


RULES: dict[str, Acceptance] = {
    "coupled": Coupled(),
    "standard": Rejection(standard),
    "block": Rejection(block),
}
