"""Measurements against other engines. Each is a command: `python -m benchmarks.NAME`."""
