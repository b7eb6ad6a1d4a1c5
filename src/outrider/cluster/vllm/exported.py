"""Heads in 4 bits, exported once and kept."""

from __future__ import annotations

import shutil
from hashlib import file_digest
from pathlib import Path
from tempfile import mkdtemp

from platformdirs import user_cache_path

from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.head_export import export_head
from outrider.models.head_file import SAFETENSORS


def exported(head: HeadCheckpoint, cache: Path | None = None) -> Path:
    """A folder with the head as vLLM reads it, named after what the head's own holds.

    cache: in place of the user's. All machines that vLLM computes on have to see it.
    """
    cache = (cache or user_cache_path("outrider")) / "exported-heads"
    digests = []
    for name in ("config.json", SAFETENSORS):
        with (head.path / name).open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest()[:16])
    folder = cache / "-".join(digests)
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(dir=cache))
        try:
            export_head(head, partial)
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # which another process may have made meanwhile
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder
