"""A tokenizer is what its tokenizer.json says, with what transformers makes of the files beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from outrider.errors import ModelError
from outrider.models import tokenizer as ours
from outrider.models.tokenizer import load_tokenizer
from tests.models.folder_tokenizers import (
    BACKENDS,
    CONFIGS,
    PIECES,
    PLAIN,
    TEXTS,
    byte_level,
    sentencepiece,
    wordpiece,
    write,
)


@pytest.fixture(scope="module", params=BACKENDS)
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ours and theirs, by what stands beside tokenizer.json."""
    root, make = tmp_path_factory.mktemp("tokenizers"), BACKENDS[request.param]
    folders = {name: write(root / name, make(), files) for name, files in CONFIGS.items()}
    return {
        name: (load_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder))
        for name, folder in folders.items()
    }


def test_vocabulary_and_special_tokens_are_those_of_transformers(pairs: dict[str, Any]) -> None:
    for name, (own, theirs) in pairs.items():
        assert own.get_vocab() == theirs.get_vocab(), name
        assert len(own) == len(theirs), name
        assert own.special_tokens == theirs.special_tokens_map, name
        assert (own.bos_token, own.bos_token_id) == (theirs.bos_token, theirs.bos_token_id), name
        assert (own.eos_token, own.eos_token_id) == (theirs.eos_token, theirs.eos_token_id), name
        ids = range(len(own) + 2)
        assert [own.id_to_token(i) for i in ids] == theirs.convert_ids_to_tokens(list(ids)), name
        added = {i: repr(token) for i, token in theirs.added_tokens_decoder.items()}
        assert {i: repr(token) for i, token in own.backend.get_added_tokens_decoder().items()} == added, name


@settings(max_examples=15, deadline=None)
@given(text=st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=20)))
def test_ids_and_texts_are_those_of_transformers(pairs: dict[str, Any], text: str) -> None:
    for name, (own, theirs) in pairs.items():
        for special in (True, False):
            ids = own.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special), (name, text)
            expected = theirs.decode(ids, skip_special_tokens=special, clean_up_tokenization_spaces=False)
            assert own.decode(ids, skip_special_tokens=special) == expected, (name, text)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_ids_decode_as_by_transformers(pairs: dict[str, Any], data: st.DataObject) -> None:
    """Bytes that are no UTF-8, and marks of spaces anywhere."""
    for name, (own, theirs) in pairs.items():
        ids = data.draw(st.lists(st.integers(0, len(own) + 1), max_size=20))
        expected = theirs.decode(ids, clean_up_tokenization_spaces=False)
        assert own.decode(ids) == expected, name


def test_clean_up_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Transformers does not either for byte pairs; where it does, that is told. What is written token by
    token cannot be taken back."""
    cleaning = {"tokenizer_config.json": {"clean_up_tokenization_spaces": True}}
    with caplog.at_level(logging.WARNING, "outrider"):
        own = load_tokenizer(write(tmp_path / "a", byte_level(), cleaning))
        theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "a")
        text = "It 's , I am ."
        assert own.decode(own.encode(text)) == theirs.decode(theirs.encode(text)) == text
        load_tokenizer(write(tmp_path / "b", wordpiece(), cleaning))
    (record,) = (record for record in caplog.records if record.name.startswith("outrider"))
    assert str(tmp_path / "b") in record.getMessage()
    assert "clean_up_tokenization_spaces = true is not followed" in record.getMessage()


@pytest.mark.parametrize(
    ("setting", "files"),
    [
        (None, {}),
        ("a", {}),
        ([{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}], {}),
        ([{"name": "rag", "template": "b"}], {}),
        ("a", {"chat_template.jinja": "{{ bos_token }}\n"}),
        ("a", {"chat_template.jinja": "b", "additional_chat_templates/tool_use.jinja": "c"}),
        ("a", {"additional_chat_templates/tool_use.jinja": "c"}),
    ],
)
def test_chat_templates_are_those_of_transformers(
    tmp_path: Path, setting: Any, files: dict[str, str]
) -> None:
    write(tmp_path, byte_level(), {"tokenizer_config.json": {"chat_template": setting}})
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path).chat_template
    own = load_tokenizer(tmp_path)
    assert own.templates == ({"default": theirs} if isinstance(theirs, str) else theirs or {})
    default = own.templates.get("default")
    assert (own.chat_template and own.chat_template.source) == default


@pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)
def test_what_is_saved_is_read_again(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    """By transformers too."""
    templates = [{"name": "default", "template": "\u00e9"}, {"name": "tool_use", "template": "b"}]
    names = {"bos_token": "<s>", "image_token": "<more>", "chat_template": templates}
    first = load_tokenizer(write(tmp_path / "a", make(), {"tokenizer_config.json": names}))
    (tmp_path / "b").mkdir()
    first.save(tmp_path / "b")
    second, theirs = load_tokenizer(tmp_path / "b"), PreTrainedTokenizerFast.from_pretrained(tmp_path / "b")
    assert second.get_vocab() == theirs.get_vocab() == first.get_vocab()
    assert second.special_tokens == theirs.special_tokens_map == first.special_tokens
    assert second.templates == theirs.chat_template == first.templates
    for text in (*TEXTS, "".join(PIECES)):
        assert second.encode(text) == theirs.encode(text) == first.encode(text)


@pytest.mark.parametrize("kind", ["LlamaTokenizerFast", "GPT2Tokenizer", "Qwen2Tokenizer", "None"])
@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_the_file_decides(tmp_path: Path, make: Callable[[], Tokenizer], kind: str) -> None:
    config = {"tokenizer_class": kind, "add_prefix_space": True, "legacy": False}
    write(tmp_path, make(), {"tokenizer_config.json": config})
    expected, tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), load_tokenizer(tmp_path)
    for text in TEXTS:
        ids = expected.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == expected.decode(ids)


def test_a_file_at_which_the_library_panics(tmp_path: Path) -> None:
    write(tmp_path, byte_level(), {})
    file = tmp_path / "tokenizer.json"
    contents = json.loads(file.read_text())
    contents["model"]["continuing_subword_prefix"] = "longer than any token"
    file.write_text(json.dumps(contents))
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded: range end index"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ours.OTHERS)
def test_a_tokenizer_in_another_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ModelError, match=r"cannot be loaded without a tokenizer\.json: ") as caught:
        load_tokenizer(tmp_path)
    text = str(caught.value)
    assert str(tmp_path) in text
    assert f"'{name}' can be turned into one where transformers is installed" in text
    assert text.endswith("or give a folder that has it with tokenizer=")


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"without a tokenizer\.json: there is none of any kind; or give"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("tokenizer_config.json", "eos_token", 3),
        ("tokenizer_config.json", "bos_token", {"lstrip": True}),
        ("tokenizer_config.json", "bos_token", {"content": "a", "lstrip": "yes"}),
        ("special_tokens_map.json", "pad_token", []),
        ("tokenizer_config.json", "extra_special_tokens", "<a>"),
        ("tokenizer_config.json", "extra_special_tokens", [1]),
        ("tokenizer_config.json", "model_specific_special_tokens", [1]),
        ("tokenizer_config.json", "added_tokens_decoder", ["<a>"]),
        ("tokenizer_config.json", "added_tokens_decoder", {"a": PLAIN}),
        ("tokenizer_config.json", "added_tokens_decoder", {"1": 5}),
        ("tokenizer_config.json", "split_special_tokens", "no"),
        ("tokenizer_config.json", "chat_template", 3),
        ("tokenizer_config.json", "chat_template", [3]),
        ("tokenizer_config.json", "chat_template", [{"name": "default"}]),
        ("added_tokens.json", "<a>", "one"),
        ("added_tokens.json", "<a>", float("inf")),
    ],
)
def test_settings_of_a_wrong_type(tmp_path: Path, file: str, name: str, value: Any) -> None:
    write(tmp_path, byte_level(), {file: {name: value}})
    with pytest.raises(ModelError, match=f"the tokenizer cannot be loaded: {file} has {name} = ") as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
