"""A folder's tokenizer is what its tokenizer.json says, whatever class tokenizer_config.json names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import AutoTokenizer

from outrider.errors import ModelError
from outrider.models import tokenizer as tokenizers_of_folders
from outrider.models.tokenizer import load_tokenizer
from tests.factories import tiny_tokenizer

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
TEXTS = (" a space first", "two  spaces", "\tna\u00efve \u65e5\u672c \U0001f642\n\n", "don't, 123")


def sentencepiece(path: Path) -> None:
    """As Llama 2's tokenizer.json: a space before every text, spaces as marks, bytes for the rest."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [(SPACE, letter) for letter in letters] + [(SPACE, SPACE)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256)), SPACE, *letters]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    restore = [
        decoders.Replace(SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    backend.decoder = decoders.Sequence(restore)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(path / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def byte_level(path: Path) -> None:
    tiny_tokenizer().save_pretrained(path)


def named(path: Path, **settings: Any) -> None:
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    "kind", ["LlamaTokenizerFast", "LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "None"]
)
@pytest.mark.parametrize("write", [byte_level, sentencepiece])
def test_the_file_decides(tmp_path: Path, write: Any, kind: str) -> None:
    write(tmp_path)
    named(tmp_path, tokenizer_class=kind, add_prefix_space=True, legacy=False)
    expected, tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), load_tokenizer(tmp_path)
    for text in TEXTS:
        ids = expected.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == expected.decode(ids)


def test_special_tokens_are_no_difference(tmp_path: Path) -> None:
    sentencepiece(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == 1
    assert tokenizer.eos_token == "</s>"


def test_tokens_that_the_settings_add_are_no_difference(tmp_path: Path) -> None:
    byte_level(tmp_path)
    count = len(tiny_tokenizer())
    added = {"content": "  ", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named(tmp_path, added_tokens_decoder={str(count): added | {"special": False}})
    assert count in load_tokenizer(tmp_path).encode("two  spaces")


def test_a_library_that_makes_another_tokenizer_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers' class for Llama does: it drops the second of two spaces that begin a text."""
    sentencepiece(tmp_path)
    named(tmp_path, tokenizer_class="LlamaTokenizer")
    monkeypatch.setattr(tokenizers_of_folders, "PreTrainedTokenizerFast", AutoTokenizer)
    with pytest.raises(ModelError, match="is another tokenizer: it reads ' two ") as caught:
        load_tokenizer(tmp_path)
    text = str(caught.value)
    assert str(tmp_path) in text
    assert transformers.__version__ in text
    assert "\n" not in text


def test_a_file_at_which_the_library_panics(tmp_path: Path) -> None:
    byte_level(tmp_path)
    file = tmp_path / "tokenizer.json"
    contents = json.loads(file.read_text())
    contents["model"]["continuing_subword_prefix"] = "longer than any token"
    file.write_text(json.dumps(contents))
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded: range end index"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"the tokenizer cannot be loaded without a tokenizer\.json: .+[^:]$"
    ):
        load_tokenizer(tmp_path)


def test_settings_of_a_wrong_type(tmp_path: Path) -> None:
    byte_level(tmp_path)
    named(tmp_path, model_max_length="long")
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)
