"""Fixed draft lengths against the automatic one, over batch sizes and categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from outrider.measurement.bench import ALL, AUTO, Length, Run, measure_loads, shown, speculation
from outrider.measurement.loads import Loads
from outrider.measurement.prompts import Conversation

TARGET_ONLY = 0


@dataclass(frozen=True)
class Sweep:
    """One batch size and category: in each round, a run with every draft length (None: automatic, where an
    engine has that).

    Speeds are output tokens a second, medians over rounds; ratios of speeds are medians of the ratios within
    a round, so that a machine which is slower in one round does not count.
    """

    batch_size: int
    category: str
    temperature: float
    rounds: tuple[Mapping[Length, Run], ...]

    @property
    def fixed(self) -> tuple[int, ...]:
        """The fixed draft lengths, shortest first."""
        return tuple(sorted(length for length in self.rounds[0] if length is not None))

    @property
    def lengths(self) -> tuple[Length, ...]:
        """All of them, the automatic one last."""
        return (*self.fixed, *([AUTO] if self.automatic else []))

    @property
    def automatic(self) -> bool:
        """Whether the automatic length was run."""
        return AUTO in self.rounds[0]

    def tokens_per_s(self, length: Length) -> float:
        return median(runs[length].tokens_per_s for runs in self.rounds)

    def ratio(self, length: Length, over: Length) -> float:
        """The speed with one draft length over that with another."""
        return median(runs[length].tokens_per_s / runs[over].tokens_per_s for runs in self.rounds)

    @property
    def best(self) -> int:
        """The fixed length with the highest speed. It is chosen by the very numbers that it is then judged
        by, so where several are nearly as fast its own speed is flattered a little."""
        return max(self.fixed, key=self.tokens_per_s)

    def acceptance_length(self, length: Length) -> float:
        return speculation(runs[length] for runs in self.rounds).acceptance_length

    def mean_draft_length(self, length: Length) -> float:
        """Tokens that were drafted a step, where each step verifies one draft, an empty one too."""
        stats = speculation(runs[length] for runs in self.rounds)
        steps = sum(runs[length].tokens for runs in self.rounds) - stats.accepted
        return stats.drafted / steps if steps else 0.0

    def identical(self, length: Length) -> int:
        """How many outputs have the token ids of target-only."""
        return sum(runs[length].identical(runs[TARGET_ONLY]) for runs in self.rounds)

    def compared(self, length: Length) -> int:
        return sum(len(runs[length].outputs) for runs in self.rounds)

    @property
    def comparisons(self) -> int:
        """Outputs, with every length but 0, that were compared with those of target-only."""
        return sum(self.compared(length) for length in self.lengths if length != TARGET_ONLY)

    @property
    def differences(self) -> int:
        """How many of them are not the same."""
        return sum(self.compared(length) - self.identical(length) for length in self.lengths)

    def as_json(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "category": self.category,
            "temperature": self.temperature,
            "lengths": [self._length_as_json(length) for length in self.lengths],
            "best_fixed": self.best,
            **(self._auto_as_json() if self.automatic else {}),
        }

    def _auto_as_json(self) -> dict[str, Any]:
        return {
            "auto_over_best_fixed": round(self.ratio(AUTO, self.best), 3),
            "auto_over_target_only": round(self.ratio(AUTO, TARGET_ONLY), 3),
        }

    def _length_as_json(self, length: Length) -> dict[str, Any]:
        return {
            "num_speculative_tokens": shown(length),
            "tokens_per_s": round(self.tokens_per_s(length), 2),
            "over_target_only": round(self.ratio(length, TARGET_ONLY), 3),
            "acceptance_length": round(self.acceptance_length(length), 3),
            "mean_draft_length": round(self.mean_draft_length(length), 3),
            "identical": self.identical(length),
            "compared": self.compared(length),
        }


def by_category(sweeps: Sequence[Sweep]) -> dict[str, list[Sweep]]:
    """To be shown: 'all', and the categories where there are several."""
    groups: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        groups.setdefault(sweep.category, []).append(sweep)
    return groups if len(groups) > 2 else {ALL: groups[ALL]}


def tune(
    loads: Loads,
    conversations: Sequence[Conversation],
    *,
    lengths: Sequence[Length],
    batch_sizes: Sequence[int],
    temperature: float,
    max_tokens: int,
    rounds: int,
    advance: Callable[[str, int], None],
) -> list[Sweep]:
    """Measure draft lengths for every batch size and category; 'all' comes first and joins them.

    lengths: 0, target-only, is among them, since every output is compared with it. Those that one engine runs
    are run in random order within each round. Batches, turns and `advance` are as in `bench`. The largest
    batch goes first, since most of the time goes there: what is left can be told from it soon.
    """
    measured = measure_loads(
        loads,
        conversations,
        {length: "auto" if length is AUTO else f"K = {length}" for length in lengths},
        batch_sizes=sorted(batch_sizes, reverse=True),
        temperature=temperature,
        max_tokens=max_tokens,
        rounds=rounds,
        advance=advance,
        shuffled=True,
    )
    return [
        Sweep(batch_size, category, temperature, tuple(rounds_of))
        for batch_size in batch_sizes
        for category, rounds_of in measured[batch_size].items()
    ]
