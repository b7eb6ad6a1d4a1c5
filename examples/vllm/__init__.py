"""Scripts as they are written for vLLM: only what they import is another package's."""
