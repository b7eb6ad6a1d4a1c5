"""vLLM's engines."""
