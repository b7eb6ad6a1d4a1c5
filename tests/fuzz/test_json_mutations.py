"""Folders with broken files are opened, or refused in one line that names them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from outrider.errors import OutriderError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import tensors
from tests.fuzz.conftest import Cases
from tests.fuzz.json_mutations import mutate_json, mutate_safetensors
from tests.models.factories import tiny_config, write_hf

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
LEAST = {
    "config.json": 120,
    "generation_config.json": 20,
    "tokenizer_config.json": 40,
    "tokenizer.json": 20,
    INDEX: 40,
    WEIGHTS: 60,
}
LONGEST = 700  # characters of a message


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in one file and in several."""
    path = tmp_path_factory.mktemp("saved")
    config = tiny_config(hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    write_hf(path / "one", config)
    write_hf(path / "several", config, shards=3)
    return path


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", LEAST)
def test_opened_or_refused(fuzz_cases: Cases, saved: Path, tmp_path: Path, name: str) -> None:
    folder, refused = tmp_path / "model", 0
    for seed in fuzz_cases(LEAST[name], share=1 / len(LEAST)):
        shutil.copytree(saved / ("several" if name == INDEX else "one"), folder)
        change = mutate_safetensors if name == WEIGHTS else mutate_json
        change(folder / name, random.Random(seed))
        try:
            checkpoint = open_checkpoint(str(folder))
            for tensor in tensors(checkpoint.config.tree):
                checkpoint.floats(tensor)
            checkpoint.tokenizer().encode("some text")
        except OutriderError as error:
            refused += 1
            said = str(error)
            assert str(folder) in said, seed
            assert "\n" not in said, seed
            assert len(said) < LONGEST, seed
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {name}: {error!r}") from error
        shutil.rmtree(folder)
    assert refused
