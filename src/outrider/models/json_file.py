"""JSON files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outrider.errors import ModelError
from outrider.messages import reason

LARGEST = 2**28  # bytes: ten times the tokenizer.json of a vocabulary of 262,144


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError."""
    try:
        if not path.is_file():
            raise ModelError(f"{path} is not a file")
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; the most is {LARGEST}")
        text = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {reason(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value
