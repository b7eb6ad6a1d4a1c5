"""What older scripts import from here."""

from outrider.outputs import Logprob, RequestMetrics

__all__ = ["Logprob", "RequestMetrics"]
