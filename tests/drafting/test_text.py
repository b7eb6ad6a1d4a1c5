"""A target's text in a draft model's tokens, and a draft in the target's."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from outrider.drafting.text import UNSETTLED, Speaker, Spelt, Transcript, Translation
from outrider.errors import ModelError
from outrider.models.tokenizer import Tokenizer
from tests.tokenizers_of_kinds import GPT, KINDS, QWEN, TEXTS, byte_level, changed, sentencepiece

PAIRS = [(ours, theirs) for ours, theirs in product(KINDS, KINDS) if ours != theirs]
SOME = [
    ("gpt", "qwen"),
    ("qwen", "gpt"),
    ("gpt", "llama, prepend"),
    ("llama, first", "qwen"),
    ("neox", "bytes"),
]
WORDS = " ".join(TEXTS)


def speaker(made: Tokenizer, name: str = "model") -> Speaker:
    eos = made.eos_token_id
    return Speaker(name, made, len(made), () if eos is None else (eos,))


@cache
def of_kind(kind: str) -> Speaker:
    return speaker(KINDS[kind]())


@cache
def translation(target: str, draft: str) -> Translation:
    return Translation(of_kind(target), of_kind(draft))


def text_of(transcript: Transcript) -> bytes:
    """What the draft model's tokens say: without what begins a text, and the space before it."""
    draft = transcript.translation.draft
    tokens = transcript.tokens
    if draft.begins is not None:
        assert tokens[0] == draft.begins
        tokens = tokens[1:]
    text = b"".join(map(draft.bytes_of, tokens))
    return text.removeprefix(b" ") if draft.opens(first=True) else text


def ids(kind: str, text: str) -> list[int]:
    return of_kind(kind).tokenizer.encode(text)


@pytest.mark.parametrize(("target", "draft"), SOME)
@settings(max_examples=50, deadline=None)
@given(text=st.text(), data=st.data())
def test_the_draft_reads_what_was_said(target: str, draft: str, text: str, data: st.DataObject) -> None:
    """Whatever the text is, and wherever it is cut."""
    said = [token for token, _ in translation(target, draft).target.pieces(text.encode())]
    transcript = Transcript(translation(target, draft))
    while transcript.read < len(said):
        transcript.add(said[transcript.read :][: data.draw(st.integers(1, 5))])
        assert text_of(transcript) == b"".join(
            map(transcript.translation.target.bytes_of, said[: transcript.read])
        ).removeprefix(b" " if transcript.translation.target.opens(first=True) else b"")
    assert transcript.read == len(said)


@pytest.mark.parametrize(("target", "draft"), PAIRS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_it_reads_it_as_it_would_have_at_once(target: str, draft: str, data: st.DataObject) -> None:
    """Words are not cut where the target's tokens end, and tokens that are settled stay."""
    start = data.draw(st.integers(0, 200))
    text = WORDS[start : start + data.draw(st.integers(1, 120))].lstrip()
    said, transcript = ids(target, text), Transcript(translation(target, draft))
    settled: list[int] = []
    while transcript.read < len(said):
        transcript.add(said[transcript.read :][: data.draw(st.integers(1, 3))])
        assert transcript.tokens[: len(settled)] == settled
        settled = transcript.tokens[: transcript.settled]
    assert transcript.tokens == ids(draft, text)


def test_a_long_text_without_spaces_is_not_spelt_anew_as_a_whole() -> None:
    transcript = Transcript(translation("bytes", "qwen"))
    text = "\u65e5\u672c\u8a9e\u306e\u6587" * 40
    for token in ids("bytes", text):
        transcript.add([token])
        assert len(transcript.tokens) - transcript.settled <= UNSETTLED + 5
    assert text_of(transcript) == text.encode()


# Special tokens


def test_special_tokens_that_are_written_alike_are_the_same() -> None:
    transcript = Transcript(translation("gpt", "qwen"))
    transcript.add(ids("gpt", "<|im_start|>user\nthe dog<|im_end|>\n"))
    assert transcript.tokens == ids("qwen", "<|im_start|>user\nthe dog<|im_end|>\n")
    assert transcript.settled > ids("qwen", "<|im_start|>user\nthe dog<|im_end|>\n").index(
        ids("qwen", "<|im_end|>")[0]
    )


def test_a_special_token_that_ends_a_text_is_the_others_that_does() -> None:
    """Llama's </s> is <|im_end|>; each begins a text with what its own begin with."""
    transcript = Transcript(translation("llama, prepend", "gpt"))
    transcript.add([*ids("llama, prepend", "the dog"), of_kind("llama, prepend").ends[0]])
    assert transcript.tokens == [*ids("gpt", "the dog"), of_kind("gpt").ends[0]]
    back = Transcript(translation("gpt", "llama, prepend"))
    back.add([*ids("gpt", "the dog"), of_kind("gpt").ends[0]])
    assert back.tokens == [*ids("llama, prepend", "the dog"), of_kind("llama, prepend").ends[0]]


def test_another_special_token_is_read_as_its_text() -> None:
    transcript = Transcript(translation("gpt", "llama, prepend"))
    transcript.add(ids("gpt", "<|im_start|>user"))
    assert text_of(transcript) == b"<|im_start|>user"


# Drafts


def drafted(target: str, draft: str, before: str, text: str) -> tuple[Spelt, list[int]]:
    """A draft that says `text`, and the tokens in which the target would have."""
    transcript = Transcript(translation(target, draft))
    transcript.add(ids(target, before))
    said = [token for token, _ in transcript.translation.draft.pieces(text.encode())]
    whole = ids(target, before + text)
    assert whole[: transcript.read] == ids(target, before)  # a case in which it can be compared
    return transcript.translation.spell(transcript.seam, said), whole[transcript.read :]


@pytest.mark.parametrize(("target", "draft"), [pair for pair in PAIRS if pair[1] != "bytes"])
@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("The quick", " brown fox jumps over the lazy dog"),
        ("def merge(left,", " right):\n    while left"),
        ("In 2026 there", " were 12345 foxes; there won't be"),
        ("the", "\n\n- one\n- two"),
        ("\u00dcber", " allen Gipfeln ist Ruh, na\u00efve caf\u00e9"),
    ],
)
def test_a_draft_is_spelt_as_the_target_would(target: str, draft: str, before: str, text: str) -> None:
    spelt, expected = drafted(target, draft, before, text)
    assert list(spelt.tokens) == expected
    assert len(expected) - 1 <= spelt.settled <= len(expected)
    assert not spelt.closed


@pytest.mark.parametrize(("target", "draft"), SOME)
@settings(max_examples=50, deadline=None)
@given(before=st.text(max_size=8), said=st.binary(max_size=20))
def test_a_draft_says_what_was_drafted(target: str, draft: str, before: str, said: bytes) -> None:
    """Also where the target would write a token across the seam, and in the middle of a character."""
    transcript = Transcript(translation(target, draft))
    transcript.add(token for token, _ in transcript.translation.target.pieces(b"a" + before.encode()))
    tokens = [token for token, _ in transcript.translation.draft.pieces(said)]
    spelt = transcript.translation.spell(transcript.seam, tokens)
    if not spelt.closed:
        assert b"".join(map(transcript.translation.target.bytes_of, spelt.tokens)) == said
    assert spelt.settled <= len(spelt.tokens) == len(spelt.begun)


def test_a_character_that_is_not_whole_is_not_settled() -> None:
    pair = translation("gpt", "bytes")
    transcript = Transcript(pair)
    transcript.add(ids("gpt", "the dog"))
    word = [token for token, _ in pair.draft.pieces(" na\u00efve \U0001f642".encode())]
    whole = pair.spell(transcript.seam, word)
    cut = pair.spell(transcript.seam, word[:-1])
    assert b"".join(map(pair.target.bytes_of, cut.tokens[: cut.settled])) == " na\u00efve".encode()
    assert whole.tokens[: cut.settled] == cut.tokens[: cut.settled]


def test_a_word_that_may_go_on_is_not_settled() -> None:
    """The draft model says it in two tokens, so nothing says that it ends there; one token does."""
    finer, coarser = translation("gpt", "bytes"), translation("bytes", "gpt")
    for pair, settled in ((finer, 0), (coarser, 4)):
        transcript = Transcript(pair)
        transcript.add([token for token, _ in pair.target.pieces(b"over")])
        said = [token for token, _ in pair.draft.pieces(b" the")]
        assert pair.spell(transcript.seam, said).settled == settled


def test_a_draft_ends_with_a_special_token() -> None:
    pair = translation("gpt", "llama, prepend")
    transcript = Transcript(pair)
    transcript.add(ids("gpt", "the"))
    dog = [token for token, _ in pair.draft.pieces(b" dog")]
    end, begin = of_kind("llama, prepend").ends[0], pair.draft.special["<s>"]
    spelt = pair.spell(transcript.seam, [*dog, end, *dog])
    assert list(spelt.tokens) == [*ids("gpt", " dog"), of_kind("gpt").ends[0]]
    assert (spelt.closed, spelt.settled) == (True, len(spelt.tokens))
    assert list(pair.spell(transcript.seam, [*dog, begin, *dog]).tokens) == ids("gpt", " dog")


def test_an_end_of_turn_that_is_written_out_is_the_token() -> None:
    """A draft model without the token has seen it as letters in the prompt."""
    pair = translation("gpt", "llama, prepend")
    transcript = Transcript(pair)
    transcript.add(ids("gpt", "the dog"))
    said = [token for token, _ in pair.draft.pieces(b".<|im_end|>")]
    assert list(pair.spell(transcript.seam, said).tokens) == ids("gpt", ".<|im_end|>")


def test_the_first_word_of_a_text_has_the_space_that_each_puts_before_it() -> None:
    for target, draft in (("gpt", "llama, prepend"), ("llama, prepend", "gpt")):
        pair = translation(target, draft)
        transcript = Transcript(pair)
        end = of_kind(target).ends[0]
        transcript.add([*ids(target, "the"), end])
        said = [token for token, _ in pair.draft.pieces(b"dog", opening=pair.draft.opens(first=False))]
        expected = pair.target.pieces(b"dog", opening=pair.target.opens(first=False))
        assert list(pair.spell(transcript.seam, said).tokens) == [token for token, _ in expected]


def test_chances_are_those_of_all_drafted_tokens_that_begin_in_a_token() -> None:
    spelt = Spelt(tokens=(7, 8, 9), begun=(2, 2, 3))
    assert spelt.shared([0.5, 0.5, 0.25]) == (0.25, 1.0, 0.25)
    assert spelt.shared([]) == ()


# Refusals


def test_a_tokenizer_that_changes_a_text_is_refused() -> None:
    plain = speaker(byte_level(GPT, 300), "big")
    lower = speaker(changed(byte_level(QWEN, 300), normalizer=normalizers.Lowercase()), "small")
    for target, draft in ((plain, lower), (lower, plain)):
        with pytest.raises(ModelError) as caught:
            Translation(target, draft)
        assert str(caught.value) == (
            f"draft model {draft.model!r} cannot draft text for target {target.model!r}: the tokenizer of "
            "'small' does not keep a text as it is: its normalizer Lowercase changes a text; choose a draft "
            "with the target's tokenizer"
        )


def test_models_without_an_end() -> None:
    made = Translation(speaker(sentencepiece(420, "first")), Speaker("d", byte_level(GPT, 300), 300, ()))
    assert dict(made.read) == dict(made.said) == {}
