"""vLLM as the engine behind `LLM` and the server (extra `vllm`)."""
