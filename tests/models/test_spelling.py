"""Tokens and the bytes that they spell, in tokenizers of all kinds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece

from outrider.models.spelling import Spelling, unspeakable
from outrider.models.tokenizer import Tokenizer
from tests.tokenizers_of_kinds import KINDS, TEXTS, byte_level, changed, of_bytes, sentencepiece, unigram

MANY = 10**6
WORDS = st.lists(st.sampled_from([*" ".join(TEXTS).split(" "), " ", "\n", "  ", "0", "é"]), max_size=12)


@cache
def spelling(kind: str) -> Spelling:
    return Spelling(tokenizer(kind), MANY)


@cache
def tokenizer(kind: str) -> Tokenizer:
    return KINDS[kind]()


def spelt(spelling: Spelling, text: bytes, *, opening: bool = False) -> bytes:
    pieces = spelling.pieces(text, opening=opening)
    whole = b"".join(spelling.bytes_of(token) for token, _ in pieces)
    return whole.removeprefix(b" ") if opening else whole


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_is_spelt_by_its_tokens(kind: str, text: str) -> None:
    """Which is exact, unlike the library's `decode`, and each token ends where its bytes do."""
    data, at = text.encode(), 0
    for token, end in spelling(kind).pieces(data):
        at += len(spelling(kind).bytes_of(token))
        assert end == at
    assert spelt(spelling(kind), data) == data


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.binary())
def test_so_are_bytes_that_are_no_text(kind: str, data: bytes) -> None:
    assert spelt(spelling(kind), data) == data


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(words=WORDS)
def test_tokens_are_those_that_the_tokenizer_makes(kind: str, words: list[str]) -> None:
    text, ours = " ".join(words), spelling(kind)
    pieces = ours.pieces(text.encode(), opening=ours.opens(first=True))
    assert [token for token, _ in pieces] == tokenizer(kind).encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("kind", "first", "others"),
    [
        ("gpt", False, False),
        ("llama, prepend", True, True),
        ("llama, first", True, False),
        ("mistral", False, False),
    ],
)
def test_a_space_before_a_text(kind: str, first: bool, others: bool) -> None:
    ours = spelling(kind)
    assert (ours.opens(first=True), ours.opens(first=False)) == (first, others)
    assert spelt(ours, b"the dog", opening=True) == b"the dog"
    (token, end), *_ = ours.pieces(b"the dog", opening=True)
    if first:
        assert ours.bytes_of(token).startswith(b" ")
        assert end == len(ours.bytes_of(token)) - 1


def test_special_tokens_are_found_in_a_text() -> None:
    ours = spelling("gpt")
    tokens = [token for token, _ in ours.pieces(b"the<|im_end|>dog")]
    assert tokens == tokenizer("gpt").encode("the<|im_end|>dog", add_special_tokens=False)
    assert ours.special["<|im_end|>"] in tokens
    assert ours.bytes_of(ours.special["<|im_end|>"]) == b"<|im_end|>"


def test_tokens_without_a_row_are_none() -> None:
    made = of_bytes(("<a>", "<b>"))
    ours = Spelling(made, 257)
    assert ours.special == {"<a>": 256}
    assert ours.size == 257
    assert ours.bytes_of(257) == b""
    assert [token for token, _ in ours.pieces(b"<a><b>")][:1] == [256]
    assert len(ours.pieces(b"<b>")) == 3


def test_what_the_vocabulary_lacks_costs_nothing_else() -> None:
    ours = Spelling(unigram(200), MANY)
    text = "the \u2603\u2603 dog\x07".encode()
    pieces = ours.pieces(text)
    unknown = ours.special["<unk>"]
    assert unknown in [token for token, _ in pieces]
    for (token, end), begin in zip(pieces, [0, *(end for _, end in pieces)], strict=False):
        if token != unknown:
            assert text[begin:end].endswith(ours.bytes_of(token))
    assert ours.pieces(b"\xff") == []


def test_the_tokenizer_itself_stays_as_it_is() -> None:
    made = sentencepiece(420, "first")
    before = made.backend.to_str()
    Spelling(made, MANY).pieces(b"the dog", opening=True)
    assert made.backend.to_str() == before


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_keep_a_text(kind: str) -> None:
    assert unspeakable(tokenizer(kind)) is None


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"normalizer": normalizers.Lowercase()}, "its normalizer Lowercase changes a text"),
        ({"normalizer": normalizers.NFD()}, "its normalizer NFD changes a text"),
        (
            {"normalizer": normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])},
            "its normalizer Strip changes a text",
        ),
        ({"normalizer": normalizers.Replace("a", "b")}, "its normalizer Replace changes a text"),
        (
            {"pre_tokenizer": pre_tokenizers.Whitespace()},
            "its pre-tokenizer Whitespace drops parts of a text",
        ),
        (
            {"pre_tokenizer": pre_tokenizers.Split(" ", "removed")},
            "its pre-tokenizer Split drops parts of a text",
        ),
    ],
)
def test_kinds_that_change_a_text(parts: dict[str, Any], why: str) -> None:
    assert unspeakable(changed(byte_level("a+", 300), **parts)) == why


def test_models_whose_tokens_do_not_say_where_spaces_are() -> None:
    for model in (WordPiece({"a": 0}, unk_token="a"), WordLevel({"a": 0}, unk_token="a")):
        why = unspeakable(Tokenizer(Backend(model), {}))
        assert why == f"its model is {type(model).__name__}, whose tokens do not say where spaces are"
