"""How a model that is meant for embeddings makes one vector of the states of a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from outrider.models.json_file import read_json

Pooling = Literal["mean", "last"]
"""The mean of all tokens' states, or the last token's."""

GGUF_KINDS: dict[int, Pooling] = {1: "mean", 3: "last"}
MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "lasttoken": "last",
}
"""The settings of sentence-transformers: flags of older files, and what `pooling_mode` says in newer ones."""


def folder_pooling(folder: Path) -> Pooling | None:
    """What the modules of sentence-transformers say; None for a model without any, and of other kinds."""
    file = folder / "1_Pooling" / "config.json"
    if not (folder / "modules.json").exists() or not file.exists():
        return None
    settings = read_json(file)
    flags = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    modes = [*flags, *([settings["pooling_mode"]] if "pooling_mode" in settings else [])]
    return MODES.get(str(modes[0])) if len(modes) == 1 else None


def gguf_pooling(metadata: Mapping[str, Any]) -> Pooling | None:
    """What `pooling_type` says; None for a model without it, and of other kinds."""
    kind = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
    return GGUF_KINDS.get(kind) if isinstance(kind, int) else None
