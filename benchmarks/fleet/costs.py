"""What a step of a replica takes and yields, by what was measured, and how long drafts are.

`Auto` asks the engine's own rule, `outrider.drafting.allot`, which lengths pay beside so many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.fleet.measured import Drafting, Steps
from benchmarks.fleet.workload import Workload
from outrider.drafting.allot import Position, Undrafted, allot
from outrider.drafting.costs import DraftCost, TargetCost

CONTEXTS = 128  # positions by which decisions of `Auto` are told apart


@dataclass(frozen=True)
class Costs:
    """Seconds of steps and drafts, and the chances of drafted tokens."""

    steps: Steps
    drafting: Drafting

    @cached_property
    def target(self) -> TargetCost:
        return self.steps.target()

    @cached_property
    def draft(self) -> DraftCost:
        return self.drafting.cost()

    @cached_property
    def _drafted(self) -> list[float]:
        """Tokens of a draft on average, by the length that it may have."""
        return [0.0, *np.cumsum(self.drafting.offered).tolist()]

    def seconds(self, lengths: Sequence[int], prompt_rows: int, context: float, requests: int) -> float:
        """A step in which some decode with drafts of these lengths, beside so many rows of prompts.

        context: positions that a request has computed on average; requests: of which prompts are read too.
        """
        drafted = sum(self._drafted[length] for length in lengths)
        rows = len(lengths) + drafted + prompt_rows
        target = self.target
        passed = (
            target.one_pass(rows)
            + target.position * context * requests
            + target.position_row * context * rows
        )
        asked = len(lengths) - lengths.count(0)
        draft = (
            self.draft.fixed * max(lengths, default=0) + self.draft.each * drafted + self.draft.first * asked
        )
        return passed + target.request * requests + draft

    def tokens(
        self, lengths: Sequence[int], steps: int, random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """[steps, requests]: what each step gives each request that decodes."""
        longest = max(lengths, default=0)
        if not longest:
            return np.ones((steps, len(lengths)), np.int64)
        chances = np.array(self.drafting.stood[:longest])
        drawn = random.random((steps, len(lengths)))
        stood = (drawn[:, :, None] < chances).sum(axis=2)
        tokens: npt.NDArray[np.int64] = 1 + np.minimum(stood, np.array(lengths))
        return tokens

    def capacity(self, workload: Workload) -> float:
        """Requests a second of a replica that decodes without drafts, has all that it may run, and finds
        nothing cached."""
        steps = self.steps
        each = min(steps.max_num_seqs / workload.answer, steps.prompt_rows / workload.mean_prompt)
        decoding = max(1, round(each * workload.answer))
        context = workload.mean_prompt + workload.answer / 2
        rows = round(each * workload.mean_prompt)
        return each / self.seconds((0,) * decoding, rows, context, decoding + 1)


class Length(Protocol):
    """How long the drafts of a step are."""

    def lengths(self, decoding: int, prompt_rows: int, context: float) -> Sequence[int]:
        """One for each of so many requests that decode, beside so many rows of prompts."""


@dataclass(frozen=True)
class Fixed:
    """The same always; 0: the target alone."""

    length: int

    def lengths(self, decoding: int, prompt_rows: int, context: float) -> Sequence[int]:
        return (self.length,) * decoding


@dataclass(frozen=True)
class Auto:
    """What the engine would choose, that knows the costs and the chances."""

    costs: Costs
    _known: dict[tuple[int, int, int], Sequence[int]] = field(default_factory=dict)

    def lengths(self, decoding: int, prompt_rows: int, context: float) -> Sequence[int]:
        key = decoding, prompt_rows, round(context / CONTEXTS)
        if key not in self._known:
            self._known[key] = self._decide(decoding, prompt_rows, key[2] * CONTEXTS)
        return self._known[key]

    def _decide(self, decoding: int, prompt_rows: int, context: int) -> Sequence[int]:
        target, draft, drafting = self.costs.target, self.costs.draft, self.costs.drafting
        chances = zip(drafting.stood, drafting.offered, strict=True)
        positions = [
            Position(
                stood,
                offered,
                offered * (draft.each + target.position_row * context) + draft.first * (depth == 0),
            )
            for depth, (stood, offered) in enumerate(chances)
        ]
        rows = decoding + prompt_rows
        others = target.attention(context * decoding, context * rows) + target.request * decoding
        base = Undrafted(decoding, rows, others)
        return tuple(allot([positions] * decoding, [[draft.fixed]] * decoding, base, target).lengths)
