"""Prometheus metrics. After the prefix, names are vLLM's where it has the metric."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as HttpCounter
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from outrider.adapting.figures import HELP as LEARNING
from outrider.metrics import HELP, Counter, Gauge, Histogram, Metric, Vector
from outrider.serving.model import PREFIX, ServedEngine

KNOWN = HELP | LEARNING
KINDS = {Gauge: "gauge", Counter: "counter", Vector: "counter", Histogram: "histogram"}


class Metrics(Collector):
    """What the engine and the server have counted, for `/metrics` to show. One registry a server."""

    def __init__(self, model: str, engine: ServedEngine) -> None:
        self._labels = {"model_name": model}
        self._engine = engine
        self._seen: list[Metric] = []
        registry = self._registry = CollectorRegistry()
        registry.register(self)
        names = ["model_name", "path", "status"]
        self._http = HttpCounter(
            PREFIX + "http_requests", "HTTP requests answered.", names, registry=registry
        )

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP request."""
        self._http.labels(self._labels["model_name"], path, str(status)).inc()

    async def text(self) -> bytes:
        """What `/metrics` shows."""
        self._seen = await self._engine.metrics(self._labels)
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """What the engine has counted, for the registry."""
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
