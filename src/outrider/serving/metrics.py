"""Prometheus metrics. After the prefix, names are vLLM's where it has the metric."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from outrider.engine.engine import Engine
from outrider.engine.watcher import Watcher
from outrider.outputs import Increment, RequestOutput

PREFIX = "outrider:"
FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80
)  # fmt: skip
BETWEEN_TOKENS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5
)  # fmt: skip
END_TO_END = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
LENGTHS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


class Metrics(Watcher):
    """A watcher of the engine that counts, for `/metrics` to show. One registry a server."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._running = self._gauge("num_requests_running", "Sequences that are being computed.")
        self._waiting = self._gauge("num_requests_waiting", "Sequences that wait to be computed.")
        self._cache_use = self._gauge(
            "kv_cache_usage_perc",
            "Used share of the K/V cache, 1 is all; of the group of layers that has least left.",
        )
        self._cache_queries = self._counter("prefix_cache_queries", "Prompt tokens looked up in the cache.")
        self._cache_hits = self._counter("prefix_cache_hits", "Prompt tokens found in the cache.")
        self._preemptions = self._counter("num_preemptions", "Sequences that lost their cache for others.")
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts that were read.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens that were generated.")
        self._requests = self._counter(
            "request_success", "Sequences that ended, by reason.", "finished_reason"
        )
        self._drafts = self._counter("spec_decode_num_drafts", "Drafts that were verified.")
        self._draft_tokens = self._counter("spec_decode_num_draft_tokens", "Tokens that were drafted.")
        self._accepted = self._counter("spec_decode_num_accepted_tokens", "Drafted tokens that stood.")
        self._accepted_at = self._counter(
            "spec_decode_num_accepted_tokens_per_pos", "Drafted tokens that stood, by position.", "position"
        )
        self._draft_length = self._histogram(
            "spec_decode_draft_length", "Tokens drafted for a sequence in a step.", LENGTHS
        )
        self._draft_seconds = self._counter("spec_decode_draft_seconds", "Time spent on drafting.")
        self._verify_seconds = self._counter(
            "spec_decode_verify_seconds", "Time spent in the target's passes and on verdicts."
        )
        self._step_seconds = self._counter("step_seconds", "Time spent in steps, drafts and passes included.")
        self._first_token = self._histogram("time_to_first_token_seconds", "From arrival.", FIRST_TOKEN)
        self._between = self._histogram(
            "inter_token_latency_seconds", "Between two steps that gave a sequence tokens.", BETWEEN_TOKENS
        )
        self._end_to_end = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", END_TO_END
        )
        self._http = self._counter("http_requests", "HTTP requests answered.", "path", "status")

    def stepped(self, engine: Engine, increments: Sequence[Increment]) -> None:
        """Count a step."""
        self._draft_seconds.labels(self._model).inc(engine.report.drafting)
        self._verify_seconds.labels(self._model).inc(engine.report.verifying)
        self._step_seconds.labels(self._model).inc(engine.report.whole)
        self._preemptions.labels(self._model).inc(engine.report.preempted)
        for increment in increments:
            self._count(increment)

    def observe(self, engine: Engine) -> None:
        """Look at what is there now. May be called from another thread: it only reads."""
        self._running.labels(self._model).set(len(engine.scheduler.running))
        self._waiting.labels(self._model).set(len(engine.scheduler.waiting))
        self._cache_use.labels(self._model).set(engine.target.pool.used)

    def finished(self, output: RequestOutput) -> None:
        """Count a request that has ended."""
        times = output.metrics
        for completion in output.outputs:
            self._requests.labels(self._model, completion.finish_reason or "abort").inc()
        if times.first_token_time is not None:
            self._prompt_tokens.labels(self._model).inc(len(output.prompt_token_ids))
            self._cache_queries.labels(self._model).inc(len(output.prompt_token_ids))
            self._cache_hits.labels(self._model).inc(output.num_cached_tokens)
            self._first_token.labels(self._model).observe(times.first_token_time - times.arrival_time)
        for (before, _), (after, _) in pairwise(times.token_times):
            self._between.labels(self._model).observe(after - before)
        if times.finished_time is not None:
            self._end_to_end.labels(self._model).observe(times.finished_time - times.arrival_time)

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP request."""
        self._http.labels(self._model, path, str(status)).inc()

    def text(self) -> bytes:
        """What `/metrics` shows."""
        return generate_latest(self._registry)

    def _count(self, increment: Increment) -> None:
        if not increment.token_ids:
            return
        self._generation_tokens.labels(self._model).inc(len(increment.token_ids))
        self._draft_length.labels(self._model).observe(increment.drafted)
        if increment.drafted:
            self._drafts.labels(self._model).inc()
            self._draft_tokens.labels(self._model).inc(increment.drafted)
            self._accepted.labels(self._model).inc(increment.accepted)
        for position in range(increment.accepted):
            self._accepted_at.labels(self._model, str(position)).inc()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(PREFIX + name, text, ["model_name"], registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(PREFIX + name, text, ["model_name", *labels], registry=self._registry)
        if not labels:
            counter.labels(self._model)  # shown from the start, as 0
        return counter

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(PREFIX + name, text, ["model_name"], buckets=buckets, registry=self._registry)
