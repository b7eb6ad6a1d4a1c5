"""Damaged heads: each works, with the target's own tokens, or is refused in one line."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider.errors import ConfigError, ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.fuzz.conftest import Cases
from tests.fuzz.head_mutations import mutate
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES

LEAST = 200
PROMPT = (5, 6, 7, 5, 6, 7, 5, 6)
PARAMS = SamplingParams(temperature=0.7, seed=1, max_tokens=6)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("target")
    write_hf(path, tiny_config(hidden_size=64, num_hidden_layers=8))
    return path


@pytest.fixture(scope="module")
def heads(target: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One with each feature."""
    folder, config = tmp_path_factory.mktemp("heads"), open_checkpoint(str(target)).config
    for number, write in enumerate(FEATURES.values()):
        write(folder / str(number), config)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def alone(target: Path) -> tuple[int, ...]:
    return tokens(LLM(str(target), device="cpu"))


def tokens(llm: LLM) -> tuple[int, ...]:
    return tuple(llm.generate(PROMPT, PARAMS, use_tqdm=False)[0].outputs[0].token_ids)


def test_damaged_heads(
    fuzz_cases: Cases, target: Path, heads: list[Path], alone: tuple[int, ...], tmp_path: Path
) -> None:
    came = Counter[bool]()
    for seed in fuzz_cases(LEAST):
        head = tmp_path / str(seed)
        shutil.copytree(heads[seed % len(heads)], head)
        done = mutate(head, seed)
        method = {"method": "head" if seed % 2 else "draft_model", "model": str(head)}
        try:
            llm = LLM(str(target), device="cpu", speculative_config={**method, "num_speculative_tokens": 3})
        except (ModelError, ConfigError) as error:
            said = str(error)
        else:
            said = "works"
            assert tokens(llm) == alone, (seed, done)
        assert len(said) < 1000, (seed, done)
        assert "\n" not in said, (seed, done)
        came[said == "works"] += 1
        shutil.rmtree(head)
    assert set(came) == {False, True}, came  # else damage is too heavy, or too light, to show anything
