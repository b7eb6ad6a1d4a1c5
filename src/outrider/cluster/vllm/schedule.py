"""Draft lengths by batch size, and the command that has vLLM serve with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

Schedule = list[tuple[int, int, int]]
"""Entries of vLLM's `num_speculative_tokens_per_batch_size`: first and last batch size, and draft length.
Beyond the last entry vLLM goes on with its length."""


def schedule_of(best: Mapping[int, int]) -> Schedule:
    """Draft lengths for all batch sizes from those that were measured: each counts up to the next.

    best: draft length by batch size, at least one.
    """
    sizes = sorted(best)
    entries: Schedule = []
    for size, following in zip(sizes, [*sizes[1:], sizes[-1] + 1], strict=True):
        first, last = entries[-1][:2] if entries else (1, 0)
        if entries and entries[-1][2] == best[size]:
            entries[-1] = (first, following - 1, best[size])
        else:
            entries.append((last + 1, following - 1, best[size]))
    return entries


def serve_command(
    model: str, options: Mapping[str, Any], drafting: Mapping[str, Any], schedule: Schedule
) -> str:
    """A line for a shell. options: of vLLM's engine, by its names; drafting: a `speculative_config`, whose
    length the schedule replaces; a schedule without drafts makes it a line without speculation."""
    words = ["vllm", "serve", model, *_flags(options)]
    longest = max(length for _, _, length in schedule)
    if longest:
        config = {**drafting, "num_speculative_tokens": longest}
        if len(schedule) > 1:
            config["num_speculative_tokens_per_batch_size"] = schedule
        words += ["--speculative-config", json.dumps(config)]
    return shlex.join(words)


def _flags(options: Mapping[str, Any]) -> Sequence[str]:
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    return flags
