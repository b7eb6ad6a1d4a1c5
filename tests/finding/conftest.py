"""A shelf of models: a target, and what lies beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import tiny_config, tiny_tokenizer, write_model

Lay = Callable[..., Path]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with a target of four layers in it: the folder 'tiny-4l'."""
    write_model(tmp_path / "shelf" / "tiny-4l", tiny_config(num_hidden_layers=4, intermediate_size=192))
    return tmp_path / "shelf"


@pytest.fixture
def target_of_four(shelf: Path) -> Path:
    return shelf / "tiny-4l"


def small_model(path: Path, *, extra: tuple[str, ...] = (), layers: int = 1) -> Path:
    """A model that is far smaller than the target. extra: tokens that the target does not have."""
    tokenizer = tiny_tokenizer(extra)
    config = tiny_config(
        num_hidden_layers=layers, hidden_size=16, intermediate_size=32, vocab_size=len(tokenizer)
    )
    write_model(path, config, tokenizer=tokenizer)
    return path


def in_cache(cache: Path, repository: str, folder: Path) -> Path:
    """Lay a model into a hub's cache, as its client does; returns the snapshot."""
    own = cache / f"models--{repository.replace('/', '--')}"
    snapshot = own / "snapshots" / ("0" * 40)
    (own / "blobs").mkdir(parents=True)
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text("0" * 40)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = own / "blobs" / str(number)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty; anything that would be downloaded fails the test."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a download was begun: {arguments}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("snapshot_download", "hf_hub_download", "list_repo_files"):
        monkeypatch.setattr(f"huggingface_hub.{name}", refuse)
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"
