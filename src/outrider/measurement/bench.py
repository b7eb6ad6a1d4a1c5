"""Target-only against speculative runs, in turn in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any

from outrider.llm import LLM
from outrider.measurement.prompts import Conversation, categories, chunks
from outrider.outputs import RequestOutput, SpeculationStats
from outrider.params import SamplingParams

ALL = "all"


@dataclass(frozen=True)
class Run:
    """Outputs of some conversations, all turns, and the seconds that they took."""

    outputs: tuple[RequestOutput, ...]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self.outputs)

    def __add__(self, other: Run) -> Run:
        return Run(self.outputs + other.outputs, self.seconds + other.seconds)


@dataclass(frozen=True)
class Round:
    """The same conversations without and with speculation, right after each other."""

    target_only: Run
    speculative: Run

    @property
    def speedup(self) -> float:
        a, b = self.target_only, self.speculative
        return (b.tokens / b.seconds) / (a.tokens / a.seconds)


@dataclass(frozen=True)
class Result:
    """One batch size and category, over all rounds. Medians are over rounds; identical counts outputs."""

    batch_size: int
    category: str
    temperature: float
    rounds: tuple[Round, ...]

    @property
    def identical(self) -> int:
        return sum(
            a.outputs[0].token_ids == b.outputs[0].token_ids
            for r in self.rounds
            for a, b in zip(r.target_only.outputs, r.speculative.outputs, strict=True)
        )

    @property
    def compared(self) -> int:
        return sum(len(r.target_only.outputs) for r in self.rounds)

    @property
    def speedup(self) -> float:
        return median(r.speedup for r in self.rounds)

    @property
    def speculation(self) -> SpeculationStats:
        stats = (o.outputs[0].speculation for r in self.rounds for o in r.speculative.outputs)
        return sum(stats, SpeculationStats())

    def as_json(self) -> dict[str, Any]:
        stats = self.speculation
        return {
            "batch_size": self.batch_size,
            "category": self.category,
            "temperature": self.temperature,
            "target_only": rates([r.target_only for r in self.rounds]),
            "speculative": rates([r.speculative for r in self.rounds])
            | {
                "acceptance_length": round(stats.acceptance_length, 3),
                "acceptance_rate_by_position": [round(x, 3) for x in stats.acceptance_rate_by_position],
            },
            "speedup": round(self.speedup, 3),
            "identical": self.identical,
            "compared": self.compared,
        }


def rates(runs: Sequence[Run]) -> dict[str, float]:
    """Medians over runs: output tokens a second, time to first token, time between tokens.

    The time between the tokens of a request is that from its first to its last token over the tokens
    after the first, so that tokens which arrive together count one by one.
    """
    first, between = [], []
    for output in (output for run in runs for output in run.outputs):
        metrics, tokens = output.metrics, len(output.outputs[0].token_ids)
        if metrics.first_token_time is not None and metrics.last_token_time is not None:
            first.append(metrics.first_token_time - metrics.arrival_time)
            if tokens > 1:
                between.append((metrics.last_token_time - metrics.first_token_time) / (tokens - 1))
    return {
        "tokens_per_s": round(median(run.tokens / run.seconds for run in runs), 2),
        "ttft_ms": round(1e3 * median(first), 2) if first else 0.0,
        "itl_ms": round(1e3 * median(between), 3) if between else 0.0,
    }


def bench(
    llm: LLM,
    conversations: Sequence[Conversation],
    *,
    batch_sizes: Sequence[int],
    temperature: float,
    max_tokens: int,
    rounds: int,
    advance: Callable[[str], None],
) -> list[Result]:
    """Measure every batch size and category; category 'all' comes first and joins the others.

    Batches stay within a category; one that has too few conversations to fill a batch repeats them.
    `advance` is called with a description before each run; there are `count_runs` of them.
    """
    results = []
    groups = {c: [x for x in conversations if x.category == c] for c in categories(conversations)}
    for batch_size in batch_sizes:
        advance("warm-up")
        warm_up = [next(iter(groups.values()))[0]] * batch_size
        for length in (0, None):
            _run(llm, warm_up, batch_size, temperature, min(max_tokens, 16), length)
        measured: dict[str, list[Round]] = {category: [] for category in groups}
        for number in range(rounds):
            for category, members in groups.items():
                filled = list(islice(cycle(members), max(len(members), batch_size)))
                runs = []
                for name, length in (("target only", 0), ("speculative", None)):
                    advance(f"batch {batch_size}, round {number + 1}, {category}, {name}")
                    runs.append(_run(llm, filled, batch_size, temperature, max_tokens, length))
                measured[category].append(Round(*runs))
        joined = [join_rounds(at) for at in zip(*measured.values(), strict=True)]
        for category, rounds_of in {ALL: joined, **measured}.items():
            results.append(Result(batch_size, category, temperature, tuple(rounds_of)))
    return results


def count_runs(conversations: Sequence[Conversation], batch_sizes: Sequence[int], rounds: int) -> int:
    """How often `bench` reports progress."""
    return len(batch_sizes) * (1 + 2 * rounds * len(categories(conversations)))


def join_rounds(rounds: Sequence[Round]) -> Round:
    """Several rounds as one."""
    nothing = Run((), 0.0)
    return Round(sum((r.target_only for r in rounds), nothing), sum((r.speculative for r in rounds), nothing))


def _run(
    llm: LLM,
    conversations: Sequence[Conversation],
    batch_size: int,
    temperature: float,
    max_tokens: int,
    draft_length: int | None,
) -> Run:
    """All turns of the conversations, `batch_size` of them at a time. draft_length: None for the engine's."""
    total = Run((), 0.0)
    for start, batch in enumerate(chunks(conversations, batch_size)):
        messages: list[list[dict[str, str]]] = [[] for _ in batch]
        for turn in range(max(len(c.turns) for c in batch)):
            asked = [i for i, c in enumerate(batch) if turn < len(c.turns)]
            for i in asked:
                messages[i].append({"role": "user", "content": batch[i].turns[turn]})
            params = [
                SamplingParams(
                    temperature=temperature,
                    max_tokens=max_tokens,
                    seed=start * batch_size + i,
                    num_speculative_tokens=draft_length,
                )
                for i in asked
            ]
            began = time.perf_counter()
            outputs = llm.chat([messages[i] for i in asked], params, use_tqdm=False)
            total += Run(tuple(outputs), time.perf_counter() - began)
            for i, output in zip(asked, outputs, strict=True):
                messages[i].append({"role": "assistant", "content": output.outputs[0].text})
    return total
