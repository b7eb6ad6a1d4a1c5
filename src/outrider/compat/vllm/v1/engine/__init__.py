"""vLLM's second engine, by its names."""
