"""A text that cannot fit is refused by its characters, and none that can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from outrider.serving.characters import CharacterBound, bound_of
from tests.factories import SPECIAL, tiny_tokenizer
from tests.serving.harness import Served

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


@pytest.mark.parametrize("many", [False, True])
def test_such_a_text_is_not_tokenized(served: Served, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * (1023 * LONGEST + 1)

    def of_texts(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(served.service.prompts, "of_texts", of_texts)
    answer = served.post("/v1/completions", prompt=["on", text] if many else text)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        f"the prompt has {len(text)} characters, and no token more than {LONGEST}: with max_model_len = 1024 "
        "it can have 1023 tokens at most, and one is generated"
    )


def test_the_longest_that_may_fit_is_tokenized(served: Served) -> None:
    """Of the longest token alone, which fits; and others, whose tokens the engine counts."""
    fits = served.post("/v1/completions", prompt=SPECIAL[0] * 1023, max_tokens=1)
    assert fits.status_code == 200
    refused = served.post("/v1/completions", prompt="x" * 1024 * 5, max_tokens=1)
    assert refused.json()["error"]["message"].startswith("the prompt has 5120 tokens; with max_model_len")
    counted = served.post("/tokenize", prompt="x" * (1024 * LONGEST))
    assert counted.json()["count"] == 1024 * LONGEST
