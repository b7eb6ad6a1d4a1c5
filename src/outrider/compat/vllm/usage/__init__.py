"""vLLM's statistics of usage, which Outrider does not send."""
