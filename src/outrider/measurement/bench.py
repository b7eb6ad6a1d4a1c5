"""Target-only against speculative runs, in turn in one process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from outrider.measurement.energy import EnergyMeter, NoMeter, used
from outrider.measurement.prompts import Conversation, categories, chunks
from outrider.outputs import RequestOutput, SpeculationStats
from outrider.params import SamplingParams

if TYPE_CHECKING:
    from outrider.llm import LLM
    from outrider.measurement.loads import Loads

ALL = "all"
WARM_UP_TOKENS = 16
AFRESH: Mapping[str, Any] = MappingProxyType({"enable_prefix_caching": False, "suffix_memory": 0})
"""Options of an engine whose drafts are measured. The same prompts come again and again: what was answered
before is found neither by the prefix cache nor by lookup."""

Length = int | None
"""A draft length; None: the engine's own."""
AUTO = None  # which is 'auto' where the engine was built so


def shown(length: Length) -> int | str:
    """A draft length as reports have it."""
    return "auto" if length is AUTO else length


@dataclass(frozen=True)
class Run:
    """Outputs of some conversations, all turns, the seconds that they took, and the joules if measured."""

    outputs: tuple[RequestOutput, ...]
    seconds: float
    joules: float | None = None

    @property
    def tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self.outputs)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def decoding_s(self) -> float:
        """Seconds from the first to the last token, over all outputs."""
        times = [(o.metrics.first_token_time, o.metrics.last_token_time) for o in self.outputs]
        return sum(last - first for first, last in times if first is not None and last is not None)

    @property
    def joules_per_token(self) -> float | None:
        return None if self.joules is None else self.joules / self.tokens

    def identical(self, other: Run) -> int:
        """How many outputs have the same token ids as the other run's, which asked for the same."""
        return sum(
            a.outputs[0].token_ids == b.outputs[0].token_ids
            for a, b in zip(self.outputs, other.outputs, strict=True)
        )

    def __add__(self, other: Run) -> Run:
        joules = None if self.joules is None or other.joules is None else self.joules + other.joules
        return Run(self.outputs + other.outputs, self.seconds + other.seconds, joules)


NOTHING = Run((), 0.0, 0.0)
UNMETERED = NoMeter("nobody asked")


@dataclass(frozen=True)
class BenchRound:
    """The same conversations without and with speculation, right after each other."""

    target_only: Run
    speculative: Run

    @property
    def speedup(self) -> float:
        return self.speculative.tokens_per_s / self.target_only.tokens_per_s

    @property
    def decoding_speedup(self) -> float:
        """The same from each output's first token on, without reading prompts; 1 where nothing followed."""
        alone, drafted = (
            run.decoding_s / max(run.tokens - len(run.outputs), 1)
            for run in (self.target_only, self.speculative)
        )
        return alone / drafted if drafted else 1.0


@dataclass(frozen=True)
class Result:
    """One batch size and category, over all rounds. Medians are over rounds; identical counts outputs."""

    batch_size: int
    category: str
    temperature: float
    rounds: tuple[BenchRound, ...]

    @property
    def identical(self) -> int:
        return sum(r.speculative.identical(r.target_only) for r in self.rounds)

    @property
    def compared(self) -> int:
        return sum(len(r.target_only.outputs) for r in self.rounds)

    @property
    def speedup(self) -> float:
        return median(r.speedup for r in self.rounds)

    @property
    def decoding_speedup(self) -> float:
        return median(r.decoding_speedup for r in self.rounds)

    @property
    def speculation(self) -> SpeculationStats:
        return speculation(r.speculative for r in self.rounds)

    def as_json(self, price_per_hour: float | None = None) -> dict[str, Any]:
        stats = self.speculation
        return {
            "batch_size": self.batch_size,
            "category": self.category,
            "temperature": self.temperature,
            "target_only": rates([r.target_only for r in self.rounds], price_per_hour),
            "speculative": rates([r.speculative for r in self.rounds], price_per_hour)
            | {
                "acceptance_length": round(stats.acceptance_length, 3),
                "acceptance_rate_by_position": [round(x, 3) for x in stats.acceptance_rate_by_position],
            },
            "speedup": round(self.speedup, 3),
            "decoding_speedup": round(self.decoding_speedup, 3),
            "identical": self.identical,
            "compared": self.compared,
        }


def speculation(runs: Iterable[Run]) -> SpeculationStats:
    """The counts of all outputs together."""
    return sum((o.outputs[0].speculation for run in runs for o in run.outputs), SpeculationStats())


def rates(runs: Sequence[Run], price_per_hour: float | None = None) -> dict[str, float | None]:
    """Medians over runs: output tokens a second, time to first token, time between tokens, joules a token.

    The cost of a million output tokens, in the price's currency, follows from the first and the price.
    Joules are None if those of any run are. The time between the tokens of a request is that from its first
    to its last token over the tokens after the first, so that tokens which arrive together count one by one.
    """
    first, between = [], []
    for output in (output for run in runs for output in run.outputs):
        metrics, tokens = output.metrics, len(output.outputs[0].token_ids)
        if metrics.first_token_time is not None and metrics.last_token_time is not None:
            first.append(metrics.first_token_time - metrics.arrival_time)
            if tokens > 1:
                between.append((metrics.last_token_time - metrics.first_token_time) / (tokens - 1))
    tokens_per_s = median(run.tokens_per_s for run in runs)
    joules = [each for run in runs if (each := run.joules_per_token) is not None]
    return {
        "tokens_per_s": round(tokens_per_s, 2),
        "ttft_ms": round(1e3 * median(first), 2) if first else 0.0,
        "itl_ms": round(1e3 * median(between), 3) if between else 0.0,
        "joules_per_token": round(median(joules), 5) if len(joules) == len(runs) else None,
        "cost_per_million_tokens": None
        if price_per_hour is None
        else round(1e6 * price_per_hour / (3600 * tokens_per_s), 6),
    }


def bench(
    loads: Loads,
    conversations: Sequence[Conversation],
    *,
    length: Length = AUTO,
    batch_sizes: Sequence[int],
    temperature: float,
    max_tokens: int,
    rounds: int,
    advance: Callable[[str, int], None],
    meter: Callable[[LLM], EnergyMeter] = lambda llm: UNMETERED,
) -> list[Result]:
    """Measure every batch size and category; category 'all' comes first and joins the others.

    loads: engines for no drafts, and for `length`. meter: of an engine's device. Batches stay within a
    category; one that has too few conversations to fill a batch repeats them. `advance` is called before
    each run, with a description and how many conversations it takes; `count_conversations` says how many
    there will be.
    """
    measured = measure_loads(
        loads,
        conversations,
        {0: "target only", length: "speculative"},
        batch_sizes=batch_sizes,
        temperature=temperature,
        max_tokens=max_tokens,
        rounds=rounds,
        advance=advance,
        meter=meter,
    )
    results = []
    for batch_size in batch_sizes:
        for category, rounds_of in measured[batch_size].items():
            pairs = tuple(BenchRound(runs[0], runs[length]) for runs in rounds_of)
            results.append(Result(batch_size, category, temperature, pairs))
    return results


def measure_loads(
    loads: Loads,
    conversations: Sequence[Conversation],
    lengths: Mapping[Length, str],
    *,
    batch_sizes: Sequence[int],
    temperature: float,
    max_tokens: int,
    rounds: int,
    advance: Callable[[str, int], None],
    shuffled: bool = False,
    meter: Callable[[LLM], EnergyMeter] = lambda llm: UNMETERED,
) -> dict[int, dict[str, list[dict[Length, Run]]]]:
    """By batch size, what `measure` finds with each of the engines that `loads` yields, as if one had run
    them all."""
    found: dict[int, dict[str, list[dict[Length, Run]]]] = {size: {} for size in batch_sizes}
    for llm, runs in loads([*lengths]):
        for batch_size in batch_sizes:
            measured = measure(
                llm,
                conversations,
                {length: lengths[length] for length in runs},
                batch_size=batch_size,
                temperature=temperature,
                max_tokens=max_tokens,
                rounds=rounds,
                advance=advance,
                shuffled=shuffled,
                meter=meter(llm),
            )
            for category, rounds_of in measured.items():
                joined = found[batch_size].setdefault(category, [{} for _ in rounds_of])
                for together, more in zip(joined, rounds_of, strict=True):
                    together |= more
    return found


def measure(
    llm: LLM,
    conversations: Sequence[Conversation],
    lengths: Mapping[Length, str],
    *,
    batch_size: int,
    temperature: float,
    max_tokens: int,
    rounds: int,
    advance: Callable[[str, int], None],
    shuffled: bool = False,
    meter: EnergyMeter = UNMETERED,
) -> dict[str, list[dict[Length, Run]]]:
    """By category, 'all' first, the runs of each round by draft length. lengths: what each is called.

    Within a round a category is run with each length, one right after the other, in the order given or, if
    shuffled, in random order. Otherwise as `bench`.
    """
    advance(f"batch {batch_size}, warm-up", 0)
    for length in lengths:
        warm_up = [conversations[0]] * batch_size
        _run(llm, warm_up, batch_size, temperature, min(max_tokens, WARM_UP_TOKENS), length, UNMETERED)
    groups = _groups(conversations, batch_size)
    measured: dict[str, list[dict[Length, Run]]] = {category: [] for category in groups}
    order, draw = list(lengths), random.Random(0)
    for number in range(rounds):
        for category, members in groups.items():
            if shuffled:
                draw.shuffle(order)
            runs = {}
            for length in order:
                what = f"batch {batch_size}, round {number + 1}, {category}, {lengths[length]}"
                advance(what, len(members))
                runs[length] = _run(llm, members, batch_size, temperature, max_tokens, length, meter)
            measured[category].append(runs)
    joined = [
        {length: sum((runs[length] for runs in at), NOTHING) for length in lengths}
        for at in zip(*measured.values(), strict=True)
    ]
    return {ALL: joined, **measured}


def count_conversations(
    conversations: Sequence[Conversation], batch_sizes: Sequence[int], rounds: int, lengths: int = 2
) -> int:
    """How many `bench` will run, or `measure` with so many lengths for each of the batch sizes."""
    filled = (len(group) for size in batch_sizes for group in _groups(conversations, size).values())
    return lengths * rounds * sum(filled)


def join_rounds(rounds: Sequence[BenchRound]) -> BenchRound:
    """Several rounds as one."""
    return BenchRound(
        sum((r.target_only for r in rounds), NOTHING), sum((r.speculative for r in rounds), NOTHING)
    )


def _groups(conversations: Sequence[Conversation], batch_size: int) -> dict[str, list[Conversation]]:
    """By category, its conversations, repeated if they do not fill a batch."""
    groups = {c: [x for x in conversations if x.category == c] for c in categories(conversations)}
    return {c: list(islice(cycle(group), max(len(group), batch_size))) for c, group in groups.items()}


def _run(
    llm: LLM,
    conversations: Sequence[Conversation],
    batch_size: int,
    temperature: float,
    max_tokens: int,
    draft_length: Length,
    meter: EnergyMeter,
) -> Run:
    """All turns of the conversations, `batch_size` of them at a time."""
    total = NOTHING
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
            before = meter.joules()
            began = time.perf_counter()
            outputs = llm.chat([messages[i] for i in asked], params, use_tqdm=False)
            seconds = time.perf_counter() - began
            total += Run(tuple(outputs), seconds, used(before, meter.joules()))
            for i, output in zip(asked, outputs, strict=True):
                messages[i].append({"role": "assistant", "content": output.outputs[0].text})
    return total
