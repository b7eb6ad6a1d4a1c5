"""The tokens that end an output, of every file that names one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.engine.helpers import load
from tests.factories import SPECIAL, tiny_tokenizer
from tests.models.factories import tiny_config, write_hf

END, START, TURN = range(3)  # the ids of `SPECIAL`


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    config = tiny_config(hidden_size=16, intermediate_size=16, num_hidden_layers=1, eos_token_id=None)
    write_hf(path, config)
    (path / "generation_config.json").unlink()
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer alone names an end, `TURN`."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(file: Path, **changes: Any) -> None:
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | changes))


def ends(folder: Path, **options: Any) -> tuple[int, ...]:
    return open_checkpoint(str(folder), **options).config.eos_token_ids


@pytest.mark.parametrize(
    "eos", [SPECIAL[START], {"content": SPECIAL[START], "__type": "AddedToken"}], ids=str
)
def test_every_file_counts(folder: Path, eos: Any) -> None:
    edit(folder / "config.json", eos_token_id=10)
    edit(folder / "generation_config.json", eos_token_id=[11, 12])
    edit(folder / "tokenizer_config.json", eos_token=eos)
    (folder / "chat_template.jinja").unlink()
    assert ends(folder) == (START, 10, 11, 12)
    assert open_checkpoint(str(folder)).tokenizer().eos_token_id == START


def test_tokenizer_of_another_folder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer"
    tiny_tokenizer().save_pretrained(other)
    edit(other / "tokenizer_config.json", eos_token=SPECIAL[START])
    (other / "chat_template.jinja").unlink()
    assert ends(folder, tokenizer=str(other)) == (START,)


def test_eos_of_older_files(folder: Path) -> None:
    """special_tokens_map.json, and a token that only the vocabulary has."""
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    edit(folder / "special_tokens_map.json", eos_token="he")
    assert ends(folder) == (tiny_tokenizer().convert_tokens_to_ids("he"),)


def test_the_end_that_the_chat_template_writes(folder: Path) -> None:
    """The configurations name the end of a document only, as some chat models' do."""
    edit(folder / "config.json", eos_token_id=END)
    edit(folder / "tokenizer_config.json", eos_token=SPECIAL[END])
    assert ends(folder) == (END, TURN)


@pytest.mark.parametrize(
    "template", ["{{ messages }}", [{"name": "default", "template": "<|endoftext|>"}]], ids=str
)
def test_known_texts_that_no_template_writes_are_no_ends(folder: Path, template: Any) -> None:
    """A base model has them in its vocabulary too."""
    edit(folder / "tokenizer_config.json", eos_token=SPECIAL[END], chat_template=template)
    (folder / "chat_template.jinja").unlink()
    assert ends(folder) == (END,)


def test_a_token_that_is_not_special_is_no_end(folder: Path) -> None:
    """Ordinary text could become it."""
    file = folder / "tokenizer.json"
    tokens = json.loads(file.read_text())
    tokens["added_tokens"] = [token | {"special": token["id"] != TURN} for token in tokens["added_tokens"]]
    file.write_text(json.dumps(tokens))
    edit(folder / "tokenizer_config.json", eos_token=SPECIAL[END])
    assert ends(folder) == (END,)


def test_an_end_that_the_model_cannot_say(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokens = json.loads(file.read_text())
    tokens["added_tokens"][TURN]["id"] = 10**6
    file.write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match=r"eos_token of tokenizer_config\.json = 1000000; token ids are"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    "broken",
    [{"added_tokens": 3}, {"added_tokens": [3, {"content": []}]}, {"added_tokens": None, "model": []}],
    ids=str,
)
def test_tokenizer_files_of_wrong_types(folder: Path, broken: dict[str, Any]) -> None:
    edit(folder / "tokenizer.json", **broken)
    edit(folder / "tokenizer_config.json", eos_token=3, chat_template=3)
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        open_checkpoint(str(folder)).tokenizer()


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"typical_p": 0.6, "num_beams": 4, "do_sample": True}, "typical_p = 0.6, num_beams = 4;"),
        ({"no_repeat_ngram_size": 3, "typical_p": 0.6, "do_sample": False}, "no_repeat_ngram_size = 3;"),
        ({"temperature": 0.6, "repetition_penalty": 1.1, "do_sample": True}, None),
        ({"temperature": 1.0, "top_k": None, "repetition_penalty": 1, "max_length": 4096}, None),
    ],
    ids=str,
)
def test_sampling_defaults_that_are_not_applied_are_named(
    folder: Path, defaults: dict[str, Any], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    edit(folder / "generation_config.json", **defaults)
    with caplog.at_level(logging.WARNING, "outrider"):
        open_checkpoint(str(folder))  # as a draft is opened, whose own sampling does not matter
        assert not caplog.messages
        load(str(folder))
    assert len([text for text in caplog.messages if "sampling defaults" in text]) == (said is not None)
    assert said is None or f"sampling defaults of {folder} are not applied: {said}" in caplog.text


def test_sampling_defaults_in_config_json(folder: Path) -> None:
    """Where they were before there was a generation_config.json, which counts alone where it is there."""
    edit(folder / "config.json", temperature=0.7)
    assert open_checkpoint(str(folder)).sampling_defaults.params == {"temperature": 0.7}
    edit(folder / "generation_config.json", top_k=20)
    assert open_checkpoint(str(folder)).sampling_defaults.params == {"top_k": 20}
