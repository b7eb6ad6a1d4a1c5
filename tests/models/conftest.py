"""What the tests of models share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models.factories import tiny_config, write_hf


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """For every test of a model."""


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one narrow layer, in one file."""
    path = tmp_path_factory.mktemp("good")
    write_hf(path, tiny_config(hidden_size=16, intermediate_size=16, num_hidden_layers=1))
    return path


@pytest.fixture
def folder(good_folder: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be broken."""
    return shutil.copytree(good_folder, tmp_path / "model")
