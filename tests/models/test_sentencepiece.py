"""SentencePiece vocabularies of GGUF files: merges by score, spaces, bytes, and special tokens."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.models.gguf_tokenizer import build_tokenizer
from tests.models.gguf_vocabularies import (
    CONTROL,
    TEXTS,
    USER_DEFINED,
    pieces_of,
    sentencepiece,
    unlikely_texts,
)

NORMAL, UNKNOWN = 1, 2


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # ab first, then ab + c
        ({"ab": -1, "bc": -2, "▁a": -3, "abc": -4}, ["▁", "abc"]),
        # bc first, then ▁ + a, which leaves bc alone
        ({"bc": -1, "ab": -2, "▁a": -3, "abc": -4}, ["▁a", "bc"]),
        # bc first, then a + bc before ▁ + a
        ({"bc": -1, "ab": -2, "abc": -3, "▁a": -4}, ["▁", "abc"]),
        # ▁a first, then bc, then both
        ({"▁a": -1, "bc": -2, "ab": -3, "▁abc": -4}, ["▁abc"]),
    ],
)
def test_sentencepiece_merges_by_score(scores: dict[str, float], expected: list[str]) -> None:
    assert pieces_of("abc", sentencepiece(scores)) == ["<s>", *expected]


def test_sentencepiece_spaces_and_bytes() -> None:
    metadata = sentencepiece({"▁a": -1.0})
    assert pieces_of("a b  a", metadata) == ["<s>", "▁a", "▁", "b", "▁", "▁a"]
    assert pieces_of("é\n", metadata) == ["<s>", "▁", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert pieces_of("a🙂", metadata) == ["<s>", "▁a", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]


def test_sentencepiece_settings() -> None:
    metadata = sentencepiece({"▁a": -1.0}, add_space_prefix=False, add_bos_token=False)
    assert pieces_of("a a", metadata) == ["a", "▁a"]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_decodes_what_it_encodes(prefix: bool) -> None:
    tokenizer = build_tokenizer(sentencepiece({"ab": -1.0, "▁a": -2.0}, add_space_prefix=prefix), "m.gguf")
    for text in (*TEXTS, *unlikely_texts(100)):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def special(*tokens: str, kind: int = CONTROL, **more: Any) -> dict[str, Any]:
    """A vocabulary with these tokens at its end."""
    pieces = {"▁a": -1.0, "▁b": -2.0}
    metadata = sentencepiece(pieces | dict.fromkeys(tokens, -50.0), **more)
    types = metadata["tokenizer.ggml.token_type"]
    return metadata | {"tokenizer.ggml.token_type": [*types[: -len(tokens)], *[kind] * len(tokens)]}


def test_a_space_before_what_follows_a_special_token() -> None:
    """As in Llama 2's tokenizer, and llama.cpp."""
    assert pieces_of("a<|x|>a", special("<|x|>")) == ["<s>", "▁a", "<|x|>", "▁a"]
    assert pieces_of("<s>a", special("<|x|>", add_bos_token=False)) == ["<s>", "▁a"]


def test_mistrals_template_writes_its_spaces() -> None:
    """Its tokenizer since v3, which has [INST] as a control token, puts a space before the text alone, and
    none where the text begins with one."""
    metadata = special("[INST]", "[/INST]")
    assert pieces_of("a[INST] a[/INST]a", metadata) == ["<s>", "▁a", "[INST]", "▁a", "[/INST]", "a"]
    assert pieces_of("a", metadata) == ["<s>", "▁a"]
    spelt = special("[INST]", kind=NORMAL)  # as before v3: letters, and tokens of other vocabularies
    assert pieces_of("a<s>a", spelt) == ["<s>", "▁a", "<s>", "▁a"]
    tokenizer = build_tokenizer(metadata, "m.gguf")
    for text in (*TEXTS, *unlikely_texts(50)):
        read = tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True)
        assert read == text.removeprefix(" ")


@pytest.mark.parametrize(
    "names",
    [
        {"general.architecture": "phi3"},
        {"general.architecture": "llama", "general.name": "Phi-3 mini"},
        {"general.architecture": "llama", "general.name": "Phi 3 Mini 4k Instruct"},
    ],
    ids=str,
)
def test_phi3s_special_tokens_take_the_space_after_them_along(names: dict[str, str]) -> None:
    """But for those of Llama 2, from which its vocabulary comes."""
    metadata = special("<|user|>", "<|end|>", "<|endoftext|>")
    text = "<|user|>\na<|end|> \n<|endoftext|> a"
    expected = ["<s>", "<|user|>", "▁a", "<|end|>", "<|endoftext|>", "▁", "▁a"]
    assert pieces_of(text, metadata | names) == expected
    assert "<0x0A>" in pieces_of(text, metadata | {"general.name": "Philosopher 3"})


def test_gemmas_runs_of_spaces() -> None:
    """They are user-defined tokens, which converters write with spaces; no space is put before a text."""
    metadata = special("  ", "    ", "\n\n", kind=USER_DEFINED, add_space_prefix=False)
    assert pieces_of("a       b\n\na", metadata) == ["<s>", "a", "    ", "  ", "▁b", "\n\n", "a"]
    tokenizer = build_tokenizer(metadata, "m.gguf")
    for text in (*TEXTS, *unlikely_texts(50), " " * 9):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_letters_that_spell_a_byte_or_a_control_token() -> None:
    """A byte token made of them would be read back as that byte."""
    letters = dict.fromkeys(("<", "0", "x", "1", ">", "<0", "<0x", "<0x4", "4", "<0x41"), -3.0)
    metadata = sentencepiece(letters)
    assert pieces_of("<0x41>", metadata)[1:] == ["▁", "<0x41", ">"]
    tokenizer = build_tokenizer(metadata, "m.gguf")
    assert tokenizer.decode(tokenizer.encode("<0x41>"), skip_special_tokens=True) == "<0x41>"


def test_unknown_tokens_are_special_ones() -> None:
    for token, metadata in (("<unk>", special("<x>")), ("<oov>", special("<oov>", kind=UNKNOWN))):
        tokenizer = build_tokenizer(metadata, "m.gguf")
        ids = tokenizer.encode(f"a{token}a")
        assert [tokenizer.id_to_token(i) for i in ids] == ["<s>", "▁a", token, "▁a"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "a a"
