"""What `LLM.get_metrics` returns, by vLLM's names."""

from outrider.metrics import Counter, Gauge, Histogram, Metric, Vector

__all__ = ["Counter", "Gauge", "Histogram", "Metric", "Vector"]
