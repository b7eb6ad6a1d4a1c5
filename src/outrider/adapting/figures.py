"""What of learning is counted."""

from __future__ import annotations

from threading import Lock

from outrider.adapting.messages import TrainingRound
from outrider.metrics import Counter, Gauge, Metric

GAUGES = {
    "head_version": "Version of the head that drafts; 0 is the one that was loaded.",
    "adapt_running": "1 while the head learns, or waits for time to learn; 0 once that has ended.",
    "adapt_acceptance_length_before": (
        "Acceptance length on the latest traffic in the last round of training, of the version that drafted."
    ),
    "adapt_acceptance_length_after": "The same of the version that was trained.",
}
COUNTERS = {
    "adapt_rounds": "Rounds of training.",
    "adapt_tokens": "Tokens of traffic that were learnt from.",
    "adapt_seconds": "Processor time of training, in seconds.",
    "adapt_exchanges": "Versions that took over.",
    "adapt_rollbacks": "Versions that were taken back, since drafts stood less often than before.",
}
HELP = {**GAUGES, **COUNTERS}
"""What each metric is, by its name without the prefix."""


class Figures:
    """The numbers so far. Any thread may change them, or look."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values = dict.fromkeys(HELP, 0.0)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def set(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name] = value

    def count(self, name: str, more: float = 1) -> None:
        with self._lock:
            self._values[name] += more

    def add(self, found: TrainingRound) -> None:
        """A round has ended."""
        self.count("adapt_rounds")
        self.count("adapt_tokens", found.tokens)
        self.count("adapt_seconds", found.seconds)
        self.set("adapt_acceptance_length_before", found.before)
        self.set("adapt_acceptance_length_after", found.after)

    def snapshot(self, *, prefix: str, labels: dict[str, str]) -> list[Metric]:
        """All of them as they are now."""
        with self._lock:
            values = dict(self._values)
        return [
            *(Gauge(prefix + name, labels, values[name]) for name in GAUGES),
            *(Counter(prefix + name, labels, values[name]) for name in COUNTERS),
        ]
