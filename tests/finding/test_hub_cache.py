"""What lies in the hub's cache, and what its files are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.models.hub_cache import cached_repository, cached_snapshots
from outrider.serving.settings import public_name
from tests.finding.conftest import in_cache, small_model


def test_snapshots(hub: Path, tmp_path: Path) -> None:
    model = small_model(tmp_path / "small")
    second, first = in_cache(hub, "org/b", model), in_cache(hub, "org/a", model)
    (hub / "models--org--empty").mkdir()  # a download that was broken off
    (hub / "datasets--org--c" / "snapshots" / "0").mkdir(parents=True)
    assert [*cached_snapshots()] == [("org/a", first), ("org/b", second)]


def test_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nowhere"))
    assert [*cached_snapshots()] == []


def test_clients_see_the_repository(hub: Path, tmp_path: Path) -> None:
    """Not the hash of its snapshot."""
    snapshot = in_cache(hub, "org/name", small_model(tmp_path / "small"))
    assert cached_repository(snapshot) == cached_repository(snapshot / "config.json") == "org/name"
    assert public_name(str(snapshot)) == "org/name"
    assert cached_repository(tmp_path / "small") is None
    assert public_name(str(tmp_path / "small")) == "small"
    assert public_name("org/other") == "org/other"
