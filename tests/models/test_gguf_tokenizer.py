"""Tokenizers from GGUF metadata give the ids that the models were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from outrider.errors import ModelError
from outrider.models.checkpoint import locate, open_checkpoint
from outrider.models.gguf_tokenizer import build_tokenizer
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf
from tests.models.gguf_vocabularies import (
    CONTROL,
    TEXTS,
    byte_level,
    pieces_of,
    sentencepiece,
    unlikely_texts,
)


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return open_checkpoint("smollm2").tokenizer()


@pytest.fixture(scope="module")
def definition() -> Tokenizer:
    """SmolLM2's tokenizer a second time: the file's tokens, and the splits of the model's tokenizer.json."""
    fields = GGUFReader(locate("smollm2")).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_smollm2_encodes_by_its_definition(smollm2: Any, definition: Tokenizer) -> None:
    for text in (*TEXTS, *unlikely_texts(300)):
        assert smollm2.encode(text) == definition.encode(text).ids, text


def test_smollm2_decodes_what_it_encodes(smollm2: Any) -> None:
    for text in (*TEXTS, *unlikely_texts(300)):
        assert smollm2.decode(smollm2.encode(text)) == text


def test_smollm2_known_ids(smollm2: Any) -> None:
    """Digits stand alone, and control tokens are one id each, wherever they stand."""
    assert len(smollm2.encode("12345")) == 5
    ids = smollm2.encode("a<|im_start|>b<|im_end|>")
    assert ids[1] == smollm2.token_to_id("<|im_start|>") == 1
    assert ids[3] == smollm2.eos_token_id == 2
    assert len(ids) == 4
    assert smollm2.decode(ids, skip_special_tokens=True) == "ab"


def test_smollm2_chat(smollm2: Any) -> None:
    messages = [{"role": "user", "content": "Hi 5"}]
    text = smollm2.chat_template.render(messages, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert text.endswith("<|im_end|>\n<|im_start|>user\nHi 5<|im_end|>\n<|im_start|>assistant\n")


def test_of_a_tiny_file(tmp_path: Path) -> None:
    """What is written by llama.cpp's rules reads back as the Hugging Face tokenizer it was made from."""
    original = tiny_tokenizer()
    write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", tiny_config(num_hidden_layers=1)), original)
    tokenizer = open_checkpoint(str(tmp_path / "m.gguf")).tokenizer()
    assert tokenizer.get_vocab() == original.get_vocab()
    assert tokenizer.templates == {"default": original.chat_template}
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2)
    for text in (*TEXTS, *unlikely_texts(100), "a<|im_start|>b<|im_end|>"):
        assert tokenizer.encode(text) == original(text)["input_ids"], text


def test_override(tmp_path: Path) -> None:
    """tokenizer= wins over the file's own, and helps where that one is refused."""
    model = write_hf(tmp_path / "hf", tiny_config(num_hidden_layers=1))
    write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer(), metadata={"tokenizer.ggml.pre": "strange"})
    with pytest.raises(ModelError, match=r"m\.gguf: pre-tokenizer 'strange' is not known.*tokenizer="):
        open_checkpoint(str(tmp_path / "m.gguf")).tokenizer()
    (tmp_path / "other").mkdir()
    tiny_tokenizer(extra=("<tool>",)).save_pretrained(tmp_path / "other")
    checkpoint = open_checkpoint(str(tmp_path / "m.gguf"), tokenizer=str(tmp_path / "other"))
    assert checkpoint.tokenizer().token_to_id("<tool>") == len(tiny_tokenizer())


def test_beginning_of_sequence() -> None:
    """Llama 3 begins with it unless the file says otherwise; GPT-2's kind only if the file says so."""
    assert pieces_of("ab", byte_level()) == ["ab"]
    assert pieces_of("ab", byte_level(add_bos_token=True)) == ["<end>", "ab"]
    assert pieces_of("ab", byte_level(pre="llama-bpe")) == ["<end>", "ab"]
    assert pieces_of("ab", byte_level(pre="llama-bpe", add_bos_token=False)) == ["ab"]


def test_llama3_words() -> None:
    """Its pattern takes up to three digits, and knows contractions in capitals."""
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "34", "'S", "Ġa"]
    merges = ["1 2", "12 3", "3 4", "' S", "Ġ a"]
    metadata = byte_level(pre="llama-bpe", tokens=tokens, merges=merges, token_type=[CONTROL, *[1] * 261])
    assert pieces_of("12345", metadata) == ["<end>", "123", "4", "5"]
    assert pieces_of("a'S a", metadata) == ["<end>", "a", "'S", "Ġa"]


def test_user_defined_tokens_are_kept_in_the_text() -> None:
    tokenizer = build_tokenizer(byte_level(), "m.gguf")
    ids = tokenizer.encode("a<tool>b<end>")
    assert [tokenizer.id_to_token(i) for i in ids] == ["a", "<tool>", "b", "<end>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>b"


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({}, "no tokenizer in the file"),
        (byte_level(model="bert"), r"tokenizer 'bert' is not supported \(WordPiece\); supported are 'gpt2'"),
        (byte_level(model="t5"), r"tokenizer 't5' is not supported \(unigram\)"),
        (byte_level(model="rwkv"), "tokenizer 'rwkv' is not supported"),
        (byte_level(model="plamo2"), "tokenizer 'plamo2' is not supported"),
        (byte_level(model="strange"), "tokenizer 'strange' is not supported; supported are 'gpt2'"),
        (byte_level(pre="gemma4"), "pre-tokenizer 'gemma4' is not supported"),
        (byte_level(pre="qwen9"), "pre-tokenizer 'qwen9' is not known; near it are 'qwen2'"),
        (byte_level(pre="?"), "pre-tokenizer '[?]' is not known; give"),
        (byte_level(merges=None), "metadata 'tokenizer.ggml.merges' is missing"),
        (byte_level(precompiled_charsmap=[1]), r"precompiled_charsmap = \[1\]; it is not supported"),
        (byte_level(remove_extra_whitespaces=True), "remove_extra_whitespaces = True; it is not supported"),
    ],
)
def test_what_is_not_known_is_refused(metadata: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=rf"m\.gguf: .*{named}.*tokenizer="):
        build_tokenizer(metadata, "m.gguf")


@pytest.mark.parametrize(
    "metadata",
    [
        {"tokenizer.ggml.merges": ["t zz"]},
        {"tokenizer.ggml.merges": ["the"]},
        {"tokenizer.ggml.eos_token_id": 99999},
        {"tokenizer.ggml.model": "llama"},  # but no scores
    ],
)
def test_metadata_that_contradict_themselves(tmp_path: Path, metadata: dict[str, Any]) -> None:
    file = tmp_path / "m.gguf"
    model = write_hf(tmp_path / "hf", tiny_config(num_hidden_layers=1))
    write_gguf(file, model, tiny_tokenizer(), metadata=metadata)
    with pytest.raises(ModelError, match=str(file)):
        open_checkpoint(str(file)).tokenizer()


def a_token(at: int, token: str) -> dict[str, Any]:
    tokens = byte_level()["tokenizer.ggml.tokens"]
    return byte_level(tokens=[*tokens[:at], token, *tokens[at + 1 :]])


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (byte_level(tokens="abc"), "tokenizer.ggml.tokens = 'abc'; it has to be an array of strings"),
        (byte_level(tokens=["a", 1]), "tokenizer.ggml.tokens = ['a', 1]; it has to be an array of strings"),
        (a_token(7, "ab"), "tokenizer.ggml.tokens holds 'ab' twice, as id 7 and 257; each token needs"),
        (a_token(7, "a" * 1025), "of 1025 characters; 1024 are the most"),
        (byte_level(token_type=[1]), "tokenizer.ggml.token_type has 1 values for the 259 tokens"),
        (byte_level(token_type=[1.5] * 259), "it has to be an array of whole numbers"),
        (byte_level(merges=["ab"]), "tokenizer.ggml.merges holds 'ab', which is not two tokens"),
        (byte_level(merges=["a c"]), "tokenizer.ggml.merges holds 'a c', which is not two tokens"),
        (byte_level(merges=[" "]), "tokenizer.ggml.merges holds ' ', which is not two tokens"),
        (byte_level(merges=[1]), "tokenizer.ggml.merges = [1]; it has to be an array of strings"),
        (byte_level(pre=["gpt-2"]), "tokenizer.ggml.pre = ['gpt-2']; it has to be a string"),
        (byte_level(add_sep_token=1), "add_sep_token = 1; it has to be true or false"),
        (byte_level(fim_pad_token_id=999), "fim_pad_token_id = 999; the vocabulary has 259 tokens"),
        (byte_level(model=3), "tokenizer.ggml.model = 3; it has to be a string"),
        (byte_level(unknown_token_id=259), "unknown_token_id = 259; the vocabulary has 259 tokens"),
        (byte_level(padding_token_id=-1), "padding_token_id = -1; it has to be at least 0"),
        (byte_level(add_bos_token="yes"), "add_bos_token = 'yes'; it has to be true or false"),
        (byte_level(bos_token_id=None, add_bos_token=True), "tokenizer.ggml.bos_token_id is missing"),
        (byte_level(eos_token_id=None, add_eos_token=True), "tokenizer.ggml.eos_token_id is missing"),
        (byte_level() | {"tokenizer.chat_template": 1}, "tokenizer.chat_template = 1; it has to be a string"),
        (sentencepiece({}, scores=[1.0]), "tokenizer.ggml.scores has 1 values for the 263 tokens"),
        (sentencepiece({}, scores=[float("nan")] * 263), "scores = [nan, nan, nan, nan, nan, nan, ...]"),
        (sentencepiece({}, add_space_prefix=1), "add_space_prefix = 1; it has to be true or false"),
    ],
)
def test_what_a_vocabulary_may_say(metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_tokenizer(metadata, "m.gguf")
    assert str(caught.value).startswith("m.gguf: ")
    assert said in str(caught.value)


def test_the_end_is_added_where_the_file_says_so() -> None:
    assert pieces_of("ab", sentencepiece({"ab": -1.0}, add_eos_token=True)) == ["<s>", "▁", "ab", "</s>"]
    assert pieces_of("ab", byte_level(add_eos_token=True)) == ["ab", "<end>"]


def test_a_file_that_names_no_pre_tokenizer(caplog: pytest.LogCaptureFixture) -> None:
    """llama.cpp's default takes its place, with a warning; "default" says no more."""
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "1234", "?!"]
    merges = ["1 2", "12 3", "123 4", "? !"]
    vocabulary = {"tokens": tokens, "merges": merges, "token_type": [CONTROL, *[1] * 260]}
    for pre, said in ((None, "is missing"), ("", "= 'default'"), ("default", "= 'default'")):
        caplog.clear()
        assert pieces_of("a1234?!", byte_level(pre=pre, **vocabulary)) == ["a", "123", "4", "?!"]
        assert len(caplog.messages) == 1
        assert f"m.gguf: tokenizer.ggml.pre {said}; text is split" in caplog.text
    assert pieces_of("a1234?!", byte_level(**vocabulary)) == ["a", "1234", "?!"]


def test_qwens_text_is_composed_first() -> None:
    """As its tokenizer.json says; and as in no other vocabulary, text comes back composed."""
    metadata = byte_level(pre="qwen2")
    assert pieces_of("e\u0301", metadata) == pieces_of("\u00e9", metadata) == ["\u00c3", "\u00a9"]
    assert len(pieces_of("e\u0301", byte_level())) == 3


def test_words_that_are_tokens_are_kept_whole() -> None:
    """Where the model's tokenizer ignores merges for them, as Llama 3's does."""
    tokens = [*byte_level()["tokenizer.ggml.tokens"], "abc"]
    vocabulary = {"tokens": tokens, "token_type": [CONTROL, *[1] * 259], "add_bos_token": False}
    assert pieces_of("abc", byte_level(pre="llama-bpe", **vocabulary)) == ["abc"]
    assert pieces_of("abc", byte_level(pre="dbrx", **vocabulary)) == ["ab", "c"]


def test_llama3_without_bos(caplog: pytest.LogCaptureFixture) -> None:
    assert pieces_of("ab", byte_level(pre="llama-bpe", bos_token_id=None)) == ["ab"]
    assert "tokenizer.ggml.bos_token_id is missing; texts begin without" in caplog.text
    caplog.clear()
    assert pieces_of("ab", byte_level(pre="llama-bpe", bos_token_id=None, add_bos_token=False)) == ["ab"]
    assert not caplog.messages


def test_a_separator_is_for_pairs() -> None:
    assert pieces_of("ab", byte_level(add_sep_token=True)) == ["ab"]


def test_ids_without_a_token() -> None:
    """Empty texts get a name, as in llama.cpp; padding of type 5 stays out of every text."""
    known = byte_level()
    tokens = [*known["tokenizer.ggml.tokens"], "", "", "[PAD261]"]
    types = [*known["tokenizer.ggml.token_type"], 1, 1, 5]
    tokenizer = build_tokenizer(byte_level(tokens=tokens, token_type=types), "m.gguf")
    assert [tokenizer.id_to_token(i) for i in (259, 260, 261)] == ["[EMPTY_259]", "[EMPTY_260]", "[PAD261]"]
    text = "[PAD261] [EMPTY_259]"
    ids = tokenizer.encode(text)
    assert max(ids) < 259
    assert tokenizer.decode(ids) == text


def test_a_named_token_of_ordinary_text_stays_text() -> None:
    """Converters fill in a padding token that is none."""
    pad = byte_level()["tokenizer.ggml.tokens"].index("a")
    tokenizer = build_tokenizer(byte_level(padding_token_id=pad), "m.gguf")
    ids = tokenizer.encode("ab")
    assert [tokenizer.id_to_token(i) for i in ids] == ["ab"]
    ids = tokenizer.encode("ba")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ba"
