"""What an engine has done so far, counted: vLLM's metrics, by its names, and some of our own."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from threading import Lock

from outrider.engine.seam import StepEngine
from outrider.engine.watcher import Watcher
from outrider.outputs import Increment, RequestMetrics, RequestOutput


@dataclass(frozen=True)
class Metric:
    """A number, or several, under a name; its labels say of what."""

    name: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Counter(Metric):
    """A number that only grows: an integer, or seconds."""

    value: float


@dataclass(frozen=True)
class Vector(Metric):
    """Counters by position, from the first token of a draft on."""

    values: list[int]


@dataclass(frozen=True)
class Gauge(Metric):
    """A number that goes up and down."""

    value: float


@dataclass(frozen=True)
class Histogram(Metric):
    """count: values that were observed; sum: of them; buckets: how many are at most so large, by that bound
    as text, with '+Inf' last."""

    count: int
    sum: float
    buckets: dict[str, int]


GAUGES = {
    "num_requests_running": "Sequences that are being computed.",
    "num_requests_waiting": "Sequences that wait to be computed.",
    "kv_cache_usage_perc": (
        "Used share of the K/V cache, 1 is all; of the group of layers that has least left."
    ),
}
COUNTERS = {
    "prefix_cache_queries": "Prompt tokens looked up in the cache.",
    "prefix_cache_hits": "Prompt tokens found in the cache.",
    "num_preemptions": "Sequences that lost their cache for others.",
    "prompt_tokens": "Tokens of prompts that were read.",
    "generation_tokens": "Tokens that were generated.",
    "spec_decode_num_drafts": "Drafts that were verified.",
    "spec_decode_num_draft_tokens": "Tokens that were drafted.",
    "spec_decode_num_accepted_tokens": "Drafted tokens that stood.",
    "spec_decode_draft_seconds": "Time spent on drafting.",
    "spec_decode_verify_seconds": "Time spent in the target's passes and on verdicts.",
    "step_seconds": "Time spent in steps, drafts and passes included.",
}
ENDED, ENDED_BY = "request_success", "finished_reason"
ACCEPTED_AT = "spec_decode_num_accepted_tokens_per_pos"
LENGTHS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80
)  # fmt: skip
BETWEEN_TOKENS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5
)  # fmt: skip
OF_REQUESTS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
HISTOGRAMS: dict[str, tuple[str, Sequence[float]]] = {
    "spec_decode_draft_length": ("Tokens drafted for a sequence in a step.", LENGTHS),
    "time_to_first_token_seconds": ("From arrival.", FIRST_TOKEN),
    "inter_token_latency_seconds": ("Between two steps that gave a sequence tokens.", BETWEEN_TOKENS),
    "e2e_request_latency_seconds": ("From arrival to the last token.", OF_REQUESTS),
    "request_queue_time_seconds": ("From arrival to the first step.", OF_REQUESTS),
    "request_prefill_time_seconds": ("From the first step to the first token.", OF_REQUESTS),
    "request_decode_time_seconds": ("From the first token to the last.", OF_REQUESTS),
}
HELP = {
    **GAUGES,
    **COUNTERS,
    ENDED: "Sequences that ended, by reason.",
    ACCEPTED_AT: "Drafted tokens that stood, by position.",
    **{name: text for name, (text, _) in HISTOGRAMS.items()},
}
"""What each metric is, by its name without the prefix."""


class Tally(Watcher):
    """A watcher of an engine that counts. One thread may count while others look."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counts[str] = Counts()
        self._seconds = dict.fromkeys((name for name in COUNTERS if name.endswith("_seconds")), 0.0)
        self._ended: Counts[str] = Counts()
        self._accepted_at: list[int] = []
        self._observed = {name: _Observed(bounds) for name, (_, bounds) in HISTOGRAMS.items()}

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        """Count a step."""
        report = engine.report
        with self._lock:
            self._seconds["spec_decode_draft_seconds"] += report.drafting
            self._seconds["spec_decode_verify_seconds"] += report.verifying
            self._seconds["step_seconds"] += report.whole
            self._counts["num_preemptions"] += report.preempted
            for increment in increments:
                self._count(increment)

    def finished(self, output: RequestOutput) -> None:
        """Count a request that has ended."""
        times = output.metrics
        with self._lock:
            self._ended.update(completion.finish_reason or "abort" for completion in output.outputs)
            if times.first_token_time is not None:
                self._counts["prompt_tokens"] += len(output.prompt_token_ids)
                self._counts["prefix_cache_queries"] += len(output.prompt_token_ids)
                self._counts["prefix_cache_hits"] += output.num_cached_tokens
            self._observe(times)

    def snapshot(self, engine: StepEngine, *, prefix: str, labels: dict[str, str]) -> list[Metric]:
        """All metrics as they are now, those of one name one after the other. Any thread may ask.

        engine: what runs and waits in it is looked at; prefix: of each name; labels: of each metric.
        """
        occupancy = engine.occupancy
        now = {
            "num_requests_running": float(occupancy.running),
            "num_requests_waiting": float(occupancy.waiting),
            "kv_cache_usage_perc": occupancy.cache,
        }
        with self._lock:
            counted = {name: self._seconds.get(name, self._counts[name]) for name in COUNTERS}
            return [
                *(Gauge(prefix + name, labels, now[name]) for name in GAUGES),
                *(Counter(prefix + name, labels, value) for name, value in counted.items()),
                *(
                    Counter(prefix + ENDED, {**labels, ENDED_BY: reason}, count)
                    for reason, count in self._ended.items()
                ),
                Vector(prefix + ACCEPTED_AT, labels, list(self._accepted_at)),
                *(observed.histogram(prefix + name, labels) for name, observed in self._observed.items()),
            ]

    def _count(self, increment: Increment) -> None:
        if not increment.token_ids:
            return
        self._counts["generation_tokens"] += len(increment.token_ids)
        self._observed["spec_decode_draft_length"].add(increment.drafted)
        if increment.drafted:
            self._counts["spec_decode_num_drafts"] += 1
            self._counts["spec_decode_num_draft_tokens"] += increment.drafted
            self._counts["spec_decode_num_accepted_tokens"] += increment.accepted
        self._accepted_at += [0] * (increment.accepted - len(self._accepted_at))
        for position in range(increment.accepted):
            self._accepted_at[position] += 1

    def _observe(self, times: RequestMetrics) -> None:
        began, arrived, first = times.first_scheduled_time, times.arrival_time, times.first_token_time
        if began is not None:
            self._observed["request_queue_time_seconds"].add(began - arrived)
        if began is not None and first is not None and times.last_token_time is not None:
            self._observed["time_to_first_token_seconds"].add(first - arrived)
            self._observed["request_prefill_time_seconds"].add(first - began)
            self._observed["request_decode_time_seconds"].add(times.last_token_time - first)
        for (before, _), (after, _) in pairwise(times.token_times):
            self._observed["inter_token_latency_seconds"].add(after - before)
        if times.finished_time is not None:
            self._observed["e2e_request_latency_seconds"].add(times.finished_time - arrived)


class _Observed:
    """Values that were observed. bounds: of the buckets, each included in its bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def histogram(self, name: str, labels: dict[str, str]) -> Histogram:
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = dict(zip(names, accumulate(self._counts), strict=True))
        return Histogram(name, labels, count=sum(self._counts), sum=self._sum, buckets=buckets)
