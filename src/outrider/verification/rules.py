"""The acceptance rules as the engine uses them: how a draft is drawn, and how it is judged.

Draws use the request's counter-based noise; the rules themselves are the pure functions of `accept`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.ops.choice import Rows
from outrider.verification.accept import Verdict, block, coupled, standard
from outrider.verification.noise import Noise, Stream


class Round(NamedTuple):
    """What a rule judges: `draft` [k], which only rules that do not look at distributions take as a tree.

    chosen: the target's tokens at up to k + 1 positions, see `outrider.ops.choice.Stepped`; rows: what they
    were chosen from; probs: what the draft was drawn from, [k, vocab], None for a deterministic guess; rows
    and probs only where the rule looks at them. start: tokens that the request had generated when the round
    began; parents: as in `outrider.drafting.base.Draft`."""

    chosen: Sequence[int]
    rows: Rows | None
    draft: Sequence[int]
    probs: NDArray[np.float64] | None
    noise: Noise
    start: int
    parents: Sequence[int] = ()


class Acceptance(Protocol):
    """One rule, from both of its ends. start: tokens that a request had generated when the round began."""

    @property
    def looks(self) -> bool:
        """Whether it needs the distributions of target and draft, and not their tokens alone."""

    @property
    def trees(self) -> bool:
        """Whether a draft may be a tree."""

    def draft_key(self, noise: Noise, start: int) -> int:
        """The key of the noise that a draft is drawn with."""

    def judge(self, round: Round) -> Verdict:
        """The verdict on the draft of a round."""


class Coupled:
    """The target's token at every position, drawn as plain decoding draws it; a draft stands if it agrees.

    The drafter adds the same noise to its own scores, so that it tends to draw the same token (Gumbel
    coupling; Daliri et al., 2025).
    """

    looks = False
    trees = True

    def draft_key(self, noise: Noise, start: int) -> int:
        return noise.key(Stream.TOKEN)

    def judge(self, round: Round) -> Verdict:
        return coupled(round.chosen, round.draft, round.parents)


@dataclass(frozen=True)
class Rejection:
    """A rule that keeps the target's distribution, though not its very tokens.

    It may look at noise beyond the tokens that it keeps (`block` does), which tells something about that
    noise; so each round has noise of its own.
    """

    rule: Callable[[Any, Any, Sequence[int], Any, Any], Verdict]
    looks = True
    trees = False

    def draft_key(self, noise: Noise, start: int) -> int:
        return noise.of_round(start).key(Stream.DRAFT)

    def judge(self, round: Round) -> Verdict:
        chosen, rows, draft, probs, noise, start, parents = round
        assert rows is not None, "the rule looks at distributions"
        assert not parents, "the rule takes chains"
        p = rows.probabilities()
        if probs is None:  # all mass on the drafted token
            probs = np.zeros((len(draft), p.shape[1]))
            probs[np.arange(len(draft)), list(draft)] = 1.0
        # Only the draft before the first position that has no token is judged.
        end = next((i for i, token in enumerate(chosen) if token < 0), len(chosen))
        judged = min(end, len(draft))
        if judged == len(p):  # no row is left for the bonus
            p = np.concatenate([p, p[-1:]])
        noise = noise.of_round(start)
        uniforms = noise.uniforms(Stream.ACCEPT, start, judged)
        gumbel = noise.gumbel(Stream.RECOVER, start, judged + 1, p.shape[1])
        verdict = self.rule(p[: judged + 1], probs[:judged], draft[:judged], uniforms, gumbel)
        if verdict.accepted == end:
            return Verdict(end, tuple(draft[:end]), stuck=True)
        return verdict


RULES: dict[str, Acceptance] = {
    "coupled": Coupled(),
    "standard": Rejection(standard),
    "block": Rejection(block),
}
