"""Names of models, as people write them into the names of files and repositories."""

from __future__ import annotations

import re

PARTS = re.compile(r"[^a-z0-9.]+|\.(?!\d)|(?<!\d)\.")
"""Between the words of a name. A dot belongs to a word between digits alone, as in 'qwen2.5'."""


def words(name: str) -> frozenset[str]:
    """The words of a name: 'qwen2.5', 'coder', '1.5b', 'instruct'."""
    return frozenset(PARTS.split(name.lower())) - {"", "gguf"}
