"""Sampling defaults of a model, of all the files that may name some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outrider import ConfigError, ModelError
from outrider.models.generation import gguf_sampling_defaults, sampling_defaults
from tests.engine.helpers import load
from tests.factories import write_model

FILE: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "min_p": 0.05,
    "repetition_penalty": 1.05,
    "max_new_tokens": 40,
    "eos_token_id": [2],
    "transformers_version": "5.0",
}
PARAMS = {
    "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.05,
    "max_tokens": 40,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path)
    write(tmp_path / "generation_config.json", FILE)
    return tmp_path


def write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values))


def defaults_of(folder: Path, **options: Any) -> dict[str, Any]:
    return dict(load(str(folder), **options).engine.sampling_defaults)


def test_every_key_that_vllm_takes(folder: Path) -> None:
    assert defaults_of(folder) == PARAMS
    assert defaults_of(folder, generation_config="vllm") == {}


@pytest.mark.parametrize("inside", [True, False], ids=["folder", "file"])
def test_another_file(folder: Path, tmp_path_factory: pytest.TempPathFactory, inside: bool) -> None:
    other = tmp_path_factory.mktemp("other")
    file = other / "generation_config.json" if inside else other / "mine.json"
    write(file, {"temperature": 0.1})
    assert defaults_of(folder, generation_config=str(other if inside else file)) == {"temperature": 0.1}
    write(file, {"eos_token_id": [2, 5]})
    with pytest.raises(ConfigError, match=r"names the ends \[5\], which are none of the model's"):
        defaults_of(folder, generation_config=str(other if inside else file))


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelError, match="none is not a file"):
        defaults_of(folder, generation_config="none")


def test_what_replaces_them(folder: Path) -> None:
    own = {"temperature": 1.0, "top_k": None, "max_new_tokens": 7}
    kept = {name: value for name, value in PARAMS.items() if name != "top_k"}
    expected = {**kept, "temperature": 1.0, "max_tokens": 7}
    assert defaults_of(folder, override_generation_config=own) == expected
    with pytest.raises(ConfigError, match="'temprature'; did you mean 'temperature'"):
        defaults_of(folder, override_generation_config={"temprature": 1.0})
    with pytest.raises(ConfigError, match=r"top_p = 2: .*less than or equal to 1"):
        defaults_of(folder, override_generation_config={"top_p": 2})


def test_values_that_no_parameter_has(folder: Path) -> None:
    write(folder / "generation_config.json", FILE | {"top_p": 0})
    with pytest.raises(
        ModelError, match=r"sampling defaults of .*: top_p = 0: .* generation_config = 'vllm'"
    ):
        defaults_of(folder)
    assert defaults_of(folder, override_generation_config={"top_p": 0.5})["top_p"] == 0.5
    assert defaults_of(folder, generation_config="vllm") == {}


def test_a_greedy_model_is_not_made_one_that_samples() -> None:
    found = sampling_defaults(FILE | {"do_sample": False})
    assert found.params == {"repetition_penalty": 1.05, "max_tokens": 40}


def test_tokens_that_a_gguf_file_suppresses_are_told_as_those_of_a_folder() -> None:
    key, tokens = "tokenizer.ggml.suppress_tokens", [258883, 258882]
    found = gguf_sampling_defaults({key: tokens})
    assert found == sampling_defaults({"suppress_tokens": tokens})
    assert found.others == {"suppress_tokens": tokens}
    assert gguf_sampling_defaults({key: []}) == gguf_sampling_defaults({})


def test_names_of_gguf() -> None:
    found = gguf_sampling_defaults(
        {
            "general.name": "tiny",
            "general.sampling.temp": 0.699999988079071,  # 0.7 in float32
            "general.sampling.top_p": 0.949999988079071,
            "general.sampling.top_k": 64,
            "general.sampling.min_p": 0.0,
            "general.sampling.penalty_repeat": 1.0499999523162842,
            "general.sampling.mirostat": 0,
            "general.sampling.mirostat_tau": 5.0,
            "general.sampling.xtc_probability": 0.5,
            "general.sampling.xtc_threshold": 0.1,
            "general.sampling.sequence": "kpt",
        }
    )
    assert found.params == {"temperature": 0.7, "top_p": 0.95, "top_k": 64, "repetition_penalty": 1.05}
    assert found.others == {"xtc_probability": 0.5, "sequence": "kpt"}
