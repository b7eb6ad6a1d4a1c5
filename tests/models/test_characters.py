"""A text that cannot fit is refused by its characters, and none that can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from outrider.models.characters import CharacterBound, bound_of
from tests.factories import SPECIAL, tiny_tokenizer

LONGEST = max(map(len, SPECIAL))


def byte_level(*, without: str = "") -> Tokenizer:
    tokens = [*SPECIAL, *sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(without))]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def falling_back(*, rstrip: bool = False) -> Tokenizer:
    """As Llama 2's: characters that are not in the vocabulary are written byte by byte."""
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b"]
    model = BPE({t: n for n, t in enumerate(tokens)}, [], byte_fallback=True, fuse_unk=True, unk_token="a")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.add_special_tokens([AddedToken("<|end|>", rstrip=rstrip)])
    return tokenizer


def composing() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


KNOWN = {
    "bytes": byte_level(),
    "some bytes": byte_level(without="\u0104\u0105ab"),
    "composing": composing(),
    "falling back": falling_back(),
    "swallowing": falling_back(rstrip=True),
}
PIECES = st.sampled_from(
    [*SPECIAL, "<|end|>", "a", "e\u0301", "\u03b1\u0313\u0300\u0345", " ", "\n", "\x04", "\U000f0000"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PIECES, st.integers(1, 40)), max_size=6), st.sampled_from(sorted(KNOWN)), st.data())
def test_no_text_that_fits_is_excluded(pieces: list[tuple[str, int]], name: str, data: Any) -> None:
    tokenizer, text = KNOWN[name], "".join(piece * times for piece, times in pieces)
    bound = bound_of(tokenizer)
    assert bound is not None
    assert not bound.excludes(text, len(tokenizer.encode(text, add_special_tokens=False).ids))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_text_that_is_far_too_long_is_excluded(name: str) -> None:
    bound = bound_of(KNOWN[name])
    assert bound is not None
    assert bound.longest in (LONGEST, 4 * LONGEST, len("<|end|>"))
    assert bound.excludes("x" * (10 * bound.longest + 1), 10)
    assert not bound.excludes("x" * (10 * bound.longest), 10)


def unknown() -> list[Tokenizer]:
    words = Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?"))
    dropping, stripping, removing = byte_level(), byte_level(), byte_level()
    dropping.pre_tokenizer = pre_tokenizers.Whitespace()
    stripping.normalizer = normalizers.Strip()
    removing.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("ab", "a")])
    splitting = byte_level()
    splitting.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), splitting.pre_tokenizer]
    )
    return [words, dropping, stripping, removing, splitting]


def test_what_drops_characters_is_not_judged() -> None:
    assert [bound_of(tokenizer) for tokenizer in unknown()] == [None] * 5
    assert bound_of(tiny_tokenizer().backend_tokenizer) == CharacterBound(LONGEST, "")
