"""vLLM as the engine behind `LLM` and the server (extra `vllm`)."""

import os

os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # on stdout are results, and JSON
