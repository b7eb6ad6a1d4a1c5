"""A head for other engines: in the public layout, without matrices in 4 bits."""

from __future__ import annotations

from pathlib import Path

from outrider.models.head_checkpoint import KNOWN, TARGETS, HeadCheckpoint, save_head


def export_head(head: HeadCheckpoint, path: Path) -> None:
    """Write the head into a folder that vLLM, SGLang and Speculators read.

    Matrices in 4 bits become float32, which holds them without rounding; all else keeps its type. Raises
    ModelError for tensors that config.json does not imply.
    """
    tensors = {
        name: head.raw[name].array() if name in head.raw else stored.floats()
        for name, stored in head.stored.items()
        if name not in (TARGETS, KNOWN)
    }
    save_head(path, head.config, tensors, head.targets())
