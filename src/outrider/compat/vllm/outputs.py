"""What requests return, by vLLM's names."""

from outrider.outputs import CompletionOutput, RequestOutput

__all__ = ["CompletionOutput", "RequestOutput"]
