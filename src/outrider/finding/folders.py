"""Drafts in folders: beside a target, in its folder, and in the hub's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from outrider.errors import ModelError
from outrider.finding.candidate import (
    SMALLER,
    AssistantCandidate,
    Candidate,
    HeadCandidate,
    ModelCandidate,
    Sought,
    weights_size,
)
from outrider.finding.names import words
from outrider.finding.public import public_table
from outrider.models.assistant_checkpoint import is_assistant
from outrider.models.gguf_choice import gguf_models
from outrider.models.head_checkpoint import is_head
from outrider.models.hub_cache import cached_repository, cached_snapshots
from outrider.speculative_config import DrafterConfig

MOST = 256  # entries of a folder that are looked at
BESIDE, CACHED = "beside the target", "in the hub's cache"


def beside(sought: Sought) -> Iterator[Candidate]:
    """Heads and smaller models in the target's folder, and then in the folder that holds the target.

    Those whose names share most words with the target's come first, and of these the smallest.
    """
    path = sought.path.absolute()
    folders = [path] if path.is_dir() else []
    if path.is_file() or cached_repository(path) is None:  # beside a snapshot lie older ones of it
        folders.append(path.parent)
    for folder in folders:
        entries = (entry for entry in _entries(folder) if entry != path)
        found = [
            candidate for entry in entries for candidate in _candidates(entry, str(entry), BESIDE, sought)
        ]
        yield from sorted(found, key=lambda candidate: _distance(candidate, path))


def in_hub_cache(sought: Sought) -> Iterator[Candidate]:
    """Heads and smaller models that were downloaded from the Hugging Face hub before."""
    own = cached_repository(sought.path)
    found = [
        replace(candidate, measured=public_table().measured(repository))
        for repository, path in cached_snapshots()
        if repository != own
        for candidate in _candidates(path, repository, CACHED, sought)
    ]
    name = Path(own or sought.path.name)
    yield from sorted(found, key=lambda candidate: _distance(candidate, name))


def _entries(folder: Path) -> list[Path]:
    """Models that a folder may hold: GGUF files, and folders."""
    try:
        inside = sorted(islice(folder.iterdir(), MOST))
        files = gguf_models(entry.name for entry in inside if entry.is_file())
        return [entry for entry in inside if entry.is_dir()] + [folder / name for name in files]
    except OSError:  # a folder that is not ours to list
        return []


def _candidates(path: Path, label: str, where: str, sought: Sought) -> Iterator[Candidate]:
    """What lies at a path: a head, a model in a folder, or GGUF files."""
    try:
        if path.is_file():
            yield from _model(path, label, where, sought)
        elif _is(is_assistant, path):
            drafter = DrafterConfig(method="draft_model", model=str(path))
            yield AssistantCandidate(drafter, label, where, weights_size(path))
        elif _is(is_head, path):
            yield HeadCandidate(
                DrafterConfig(method="head", model=str(path)), label, where, weights_size(path)
            )
        elif (path / "config.json").is_file() and any(path.glob("*.safetensors")):
            yield from _model(path, label, where, sought)
        else:
            for name in gguf_models(entry.name for entry in islice(path.iterdir(), MOST)):
                yield from _model(path / name, f"{label}/{name}", where, sought)
    except OSError:  # what is not ours to read
        return


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    try:
        return kind(path)
    except ModelError:  # a config.json that is none
        return False


def _model(path: Path, label: str, where: str, sought: Sought) -> Iterator[Candidate]:
    """A model, where it is smaller than the target."""
    size = weights_size(path)
    if 0 < size * SMALLER <= sought.size:
        yield ModelCandidate(DrafterConfig(method="draft_model", model=str(path)), label, where, size)


def _distance(candidate: Candidate, target: Path) -> tuple[int, int]:
    """How far a candidate's name is from the target's, and how large it is."""
    own = words(Path(candidate.label).name)
    return -len(own & words(target.name)), candidate.size or 0
