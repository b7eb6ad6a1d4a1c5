"""A head that is exported is the same head, and nothing in its folder is for Outrider alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from outrider.cli.app import app
from outrider.errors import ConfigError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head, quantized, save_head
from outrider.models.head_export import export_head
from outrider.models.head_file import CODES, SAFETENSORS, SCALES
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES, arrays, random_head


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("target")
    write_hf(path, tiny_config(hidden_size=64, num_hidden_layers=8))
    return path


def assert_same(exported: HeadCheckpoint, head: HeadCheckpoint) -> None:
    assert exported.config == head.config
    assert exported.stored.keys() == head.stored.keys()
    np.testing.assert_array_equal(exported.targets(), head.targets())
    for name in head.stored.keys() - {"d2t", "t2d"}:
        np.testing.assert_array_equal(exported.stored[name].floats(), head.stored[name].floats())


@pytest.mark.parametrize("feature", FEATURES)
def test_what_a_head_has_is_exported(feature: str, target: Path, tmp_path: Path) -> None:
    FEATURES[feature](tmp_path / "head", open_checkpoint(str(target)).config)
    head = HeadCheckpoint(tmp_path / "head")
    export_head(head, tmp_path / "exported")
    assert_same(HeadCheckpoint(tmp_path / "exported"), head)


def test_4_bits_become_floats_without_rounding(target: Path, tmp_path: Path) -> None:
    tensors = random_head(tmp_path / "plain", open_checkpoint(str(target)).config, layers=2)
    plain = HeadCheckpoint(tmp_path / "plain")
    save_head(tmp_path / "small", plain.config, quantized(arrays(tensors)), plain.targets())
    head = HeadCheckpoint(tmp_path / "small")
    assert head.quantized
    export_head(head, tmp_path / "exported")
    exported = HeadCheckpoint(tmp_path / "exported")
    assert not exported.quantized
    assert_same(exported, head)


def test_the_command_exports_the_head_of_this_package(tmp_path: Path) -> None:
    out = tmp_path / "exported"
    result = CliRunner().invoke(app, ["export-head", "head", str(out)], catch_exceptions=False)
    assert str(out) in result.stdout
    assert_same(HeadCheckpoint(out), HeadCheckpoint(locate_head("head")))
    names = load_file(out / SAFETENSORS).keys()
    assert not [name for name in names if name.endswith((CODES, SCALES))]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        CliRunner().invoke(app, ["export-head", "head", str(tmp_path)], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_layers_of_qwen3_go_by_vllms_name(target: Path, tmp_path: Path) -> None:
    random_head(tmp_path / "head", open_checkpoint(str(target)).config, head_norms=True)
    head = HeadCheckpoint(tmp_path / "head")
    assert head.config.to_json()["architectures"] == ["Eagle3Qwen3ForCausalLM"]
