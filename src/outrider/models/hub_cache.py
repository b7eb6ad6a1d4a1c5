"""The Hugging Face hub's cache: what was downloaded before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants  # light: the rest comes where it is used


def cached_repository(path: Path) -> str | None:
    """The repository whose snapshot holds a file or folder; None where it lies elsewhere."""
    for folder in (path, *path.parents):
        owner = folder.parent.parent.name
        if folder.parent.name == "snapshots" and owner.startswith("models--"):
            return owner.removeprefix("models--").replace("--", "/", 1)
    return None


def cached_snapshots() -> Iterator[tuple[str, Path]]:
    """The repositories of models that are there, in order of their names, each with its newest snapshot."""
    if not Path(constants.HF_HUB_CACHE).is_dir():
        return
    from huggingface_hub import scan_cache_dir

    for repository in sorted(scan_cache_dir(constants.HF_HUB_CACHE).repos, key=lambda found: found.repo_id):
        newest = max(repository.revisions, key=lambda revision: revision.last_modified, default=None)
        if repository.repo_type == "model" and newest is not None:
            yield repository.repo_id, newest.snapshot_path
