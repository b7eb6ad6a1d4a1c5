"""What a model's text means: its reasoning, its answer, and the tools that it calls."""
