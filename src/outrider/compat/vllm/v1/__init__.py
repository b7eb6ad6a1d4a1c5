"""vLLM's second engine."""
