"""A drafter for experiments: any acceptance rate at any cost, on real kernels with real timing.

It replays what the target alone said and spoils each token with a set probability, and it spends a set time
on every step of drafting. It is no part of the package: it knows the answers, so nobody should choose it by
accident.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from outrider.drafting.base import Draft
from outrider.engine.request import Request
from outrider.ops.budget import Budget
from outrider.verification.accept import Verdict

Acceptance = Callable[[Request, int], float]
"""(request, position in its output) -> the chance that a token drafted there is right."""


def always(rate: float) -> Acceptance:
    """The same chance everywhere."""
    return lambda request, position: rate


@dataclass
class SyntheticDrafter:
    """answers: by prompt, prompt and output of the target alone; seconds: of a step for so many requests."""

    answers: Mapping[tuple[int, ...], Sequence[int]]
    acceptance: Acceptance
    seconds: Callable[[int], float]
    vocab: int
    seed: int = 0

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        """To their lengths, since it does not say how sure it is."""
        drafts: list[list[int]] = [[] for _ in requests]
        active = list(range(len(requests)))
        while active:
            began = time.perf_counter()
            tokens = [self._token(requests[i], len(drafts[i])) for i in active]
            for i, token in zip(active, tokens, strict=True):
                if token is not None:
                    drafts[i].append(token)
            spent = self.seconds(len(active))
            active = [
                i
                for i, token in zip(active, tokens, strict=True)
                if token is not None and len(drafts[i]) < budgets[i].length
            ]
            while time.perf_counter() - began < spent:
                pass  # sleeping is not exact enough, and a draft model would keep the processor busy too
        return [Draft(tuple(draft)) for draft in drafts]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """Nothing is learnt."""

    def end(self, request: Request) -> None:
        """Nothing is kept."""

    def behind(self, request: Request) -> int:
        return 0

    def rest(self) -> None:
        """Nothing is kept."""

    def _token(self, request: Request, offset: int) -> int | None:
        """The answer's token at this place, or another; None at its end. Unknown requests get any token."""
        position = len(request.tokens) + offset
        answer = self.answers.get(tuple(request.tokens[: request.prompt_length]))
        if answer is None:
            return 0
        if position >= len(answer):
            return None
        output = position - request.prompt_length
        draw = random.Random(hash((self.seed, request.id, position))).random()
        right = draw < self.acceptance(request, output)
        return answer[position] if right else (answer[position] + 1) % self.vocab
