"""Log-probabilities, by vLLM's names."""

from outrider.outputs import Logprob

__all__ = ["Logprob"]
