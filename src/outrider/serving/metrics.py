"""Prometheus metrics. After the prefix, names are vLLM's where it has the metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as HttpCounter
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from outrider.adapting.figures import HELP as LEARNING
from outrider.adapting.figures import Figures
from outrider.engine.engine import Engine
from outrider.engine.watcher import Watcher
from outrider.metrics import HELP, Counter, Gauge, Histogram, Metric, Tally, Vector
from outrider.outputs import Increment, RequestOutput

PREFIX = "outrider:"
KNOWN = HELP | LEARNING
KINDS = {Gauge: "gauge", Counter: "counter", Vector: "counter", Histogram: "histogram"}


class Metrics(Collector, Watcher):
    """A watcher of the engine that counts, for `/metrics` to show. One registry a server."""

    def __init__(self, model: str) -> None:
        self._labels = {"model_name": model}
        self._tally = Tally()
        self._seen: list[Metric] = []
        self._learning: Figures | None = None
        registry = self._registry = CollectorRegistry()
        registry.register(self)
        names = ["model_name", "path", "status"]
        self._http = HttpCounter(
            PREFIX + "http_requests", "HTTP requests answered.", names, registry=registry
        )

    def stepped(self, engine: Engine, increments: Sequence[Increment]) -> None:
        """Count a step."""
        self._tally.stepped(engine, increments)

    def finished(self, output: RequestOutput) -> None:
        """Count a request that has ended."""
        self._tally.finished(output)

    def also(self, figures: Figures) -> None:
        """Show how the head learns as well."""
        self._learning = figures

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP request."""
        self._http.labels(self._labels["model_name"], path, str(status)).inc()

    def observe(self, engine: Engine) -> None:
        """Look at what is there now. May be called from another thread: it only reads."""
        seen = self._tally.snapshot(engine, prefix=PREFIX, labels=self._labels)
        if self._learning is not None:
            seen += self._learning.snapshot(prefix=PREFIX, labels=self._labels)
        self._seen = seen

    def text(self) -> bytes:
        """What `/metrics` shows: all as it was when `observe` looked, and HTTP requests as they are."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """What was observed, for the registry."""
        for name, metrics in groupby(self._seen, key=lambda metric: metric.name):
            first, *others = metrics
            family = Family(name, KNOWN[name.removeprefix(PREFIX)], KINDS[type(first)])
            for metric in (first, *others):
                for suffix, labels, value in _samples(metric):
                    family.add_sample(name + suffix, labels, value)
            yield family


def _samples(metric: Metric) -> Iterator[tuple[str, dict[str, str], float]]:
    """Prometheus's numbers: what each adds to the name, its labels, and the number."""
    labels = metric.labels
    match metric:
        case Gauge(value=value):
            yield "", labels, value
        case Counter(value=value):
            yield "_total", labels, value
        case Vector(values=values):
            yield from (("_total", {**labels, "position": str(n)}, value) for n, value in enumerate(values))
        case Histogram(count=count, sum=total, buckets=buckets):
            yield from (("_bucket", {**labels, "le": bound}, value) for bound, value in buckets.items())
            yield "_count", labels, count
            yield "_sum", labels, total
