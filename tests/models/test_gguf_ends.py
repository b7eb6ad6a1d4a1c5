"""Which tokens of a GGUF file end a turn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.end_texts import END_TEXTS
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_tokenizer import build_tokenizer
from outrider.models.gguf_vocabulary import read_vocabulary
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf
from tests.models.gguf_vocabularies import byte_level, sentencepiece

END_OF_TEXT, IM_START, IM_END = range(3)  # of the tiny tokenizer
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_hf(tmp_path_factory.mktemp("hf"), tiny_config(num_hidden_layers=1))


def ends(metadata: dict[str, Any]) -> list[str]:
    vocabulary = read_vocabulary(Metadata(metadata, "m.gguf"))
    return sorted(vocabulary.tokens[i] for i in vocabulary.ends)


def vocabulary_of(*tokens: str, types: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """A byte-level vocabulary whose last tokens these are, without any key that names an end."""
    plain = byte_level(eos_token_id=None)
    known = plain["tokenizer.ggml.tokens"]
    kinds = plain["tokenizer.ggml.token_type"] + (types or [CONTROL] * len(tokens))
    return plain | {
        "tokenizer.ggml.tokens": [*known, *tokens],
        "tokenizer.ggml.token_type": kinds,
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"eos_token_id": END_OF_TEXT},
        {"eos_token_id": None},
        {"eos_token_id": IM_END},
        {"eos_token_id": None, "eom_token_id": IM_START},
        {"eos_token_id": None, "eot_token_id": IM_START},
    ],
)
def test_the_chats_end_ends_an_answer_and_is_not_shown(
    tmp_path: Path, model: Any, keys: dict[str, int | None]
) -> None:
    """Whatever the file names as its end, or if it names none."""
    file = tmp_path / "m.gguf"
    metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    write_gguf(file, model, tiny_tokenizer(), metadata=metadata)
    named = {value for value in keys.values() if value is not None}
    assert set(open_checkpoint(str(file)).config.eos_token_ids) == {END_OF_TEXT, IM_END} | named
    llm = LLM(str(file), device="cpu", kv_cache_memory=2**22)
    for token in (IM_END, *named):
        params = SamplingParams(max_tokens=5, logit_bias={token: 100.0})
        answer = llm.chat([{"role": "user", "content": "hi"}], params, use_tqdm=False)[0].outputs[0]
        assert (answer.text, answer.finish_reason, list(answer.token_ids)) == ("", "stop", [token])


@pytest.mark.parametrize("token", sorted(END_TEXTS))
@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED])
def test_known_ends(token: str, kind: int) -> None:
    assert ends(vocabulary_of(token, types=[kind])) == [token]
    assert ends(vocabulary_of(token) | {"tokenizer.ggml.token_type": None}) == [token]


def test_a_known_end_of_another_type_is_a_special_token_too() -> None:
    """Or a template's `<|im_end|>` would be cut into letters, and an answer would show it."""
    for kind in (NORMAL, CONTROL, USER_DEFINED):
        tokenizer = build_tokenizer(vocabulary_of("<|im_end|>", types=[kind]), "m.gguf")
        ids = tokenizer.encode("a<|im_end|>b")
        assert [tokenizer.id_to_token(i) for i in ids] == ["a", "<|im_end|>", "b"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_text_that_only_looks_like_an_end() -> None:
    """A token that merges make of ordinary text, and a piece of SentencePiece's that is no control token."""
    tokens, merges = ("</", "s>", "</s>"), ["< /", "s >", "</ s>"]
    assert ends(vocabulary_of(*tokens, types=[NORMAL] * 3, merges=merges)) == []
    assert ends(vocabulary_of(*tokens, types=[NORMAL, NORMAL, CONTROL], merges=merges)) == ["</s>"]
    assert ends(sentencepiece({"<eos>": -1.0})) == ["</s>"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["<|end|>", "<|return|>"], ["<|end|>", "<|return|>"]),
        (["<|end|>", "<|return|>", "<|call|>"], ["<|call|>", "<|return|>"]),
        (["<|end|>", "<|calls|>", "<|flush|>"], ["<|calls|>", "<|flush|>"]),
        (["</s>", "<|tool_response>", "<turn|>"], ["<turn|>", "<|tool_response>"]),
    ],
)
def test_tokens_that_end_only_part_of_a_turn(tokens: list[str], expected: list[str]) -> None:
    """As in gpt-oss, where <|end|> stands between the thoughts and the answer."""
    assert ends(vocabulary_of(*tokens)) == expected


def test_an_end_that_a_key_names_counts_whatever_its_text() -> None:
    assert ends(vocabulary_of("<|end|>", "<|return|>", "<|call|>", eos_token_id=258 + 1)) == [
        "<|call|>",
        "<|end|>",
        "<|return|>",
    ]
    assert len(ends(vocabulary_of(eot_token_id=0, eom_token_id=5))) == 2


def test_ends_of_what_is_filled_in() -> None:
    """Those tokens for filling a gap in code that stand after it end an answer, as in llama.cpp."""
    keys = ("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")
    tokens = [f"<{key}>" for key in keys]
    named: dict[str, Any] = {f"{key}_token_id": 259 + i for i, key in enumerate(keys)}
    assert ends(vocabulary_of(*tokens, **named)) == ["<fim_pad>", "<fim_rep>", "<fim_sep>"]


def test_sentencepieces_usual_ids_stand_in_for_keys() -> None:
    metadata = sentencepiece({"ab": -1.0}, bos_token_id=None, eos_token_id=None, unknown_token_id=None)
    tokenizer = build_tokenizer(metadata, "m.gguf")
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    assert tokenizer.special_tokens == special
    assert tokenizer.encode("ab")[0] == 1
    assert ends(metadata) == ["</s>"]


@pytest.mark.parametrize("key", ["eos_token_id", "eot_token_id", "eom_token_id", "bos_token_id"])
@pytest.mark.parametrize("tokenizer", [True, False])
def test_ids_out_of_range_name_the_key(tmp_path: Path, model: Any, key: str, tokenizer: bool) -> None:
    file, size = tmp_path / "m.gguf", len(tiny_tokenizer())
    for value in (size, 2**32 - 1, "2"):
        file.unlink(missing_ok=True)
        metadata = {f"tokenizer.ggml.{key}": value}
        write_gguf(file, model, tiny_tokenizer() if tokenizer else None, metadata=metadata)
        with pytest.raises(ModelError, match=rf"m\.gguf: tokenizer\.ggml\.{key} = {value!r}; "):
            open_checkpoint(str(file))


@pytest.mark.parametrize("value", [len(tiny_tokenizer()), 2**32 - 1])
def test_a_padding_token_that_is_not_there_is_none(tmp_path: Path, model: Any, value: int) -> None:
    """As in llama.cpp's stories15M.gguf."""
    file = tmp_path / "m.gguf"
    write_gguf(file, model, tiny_tokenizer(), metadata={"tokenizer.ggml.padding_token_id": value})
    checkpoint = open_checkpoint(str(file))
    assert "pad_token" not in checkpoint.tokenizer().special_tokens
    assert checkpoint.config.eos_token_ids


def test_a_vocabulary_and_an_embedding_of_two_lengths(tmp_path: Path, model: Any) -> None:
    """A token without a row is refused; rows without a token are padding."""
    size = len(tiny_tokenizer())
    for count in (size + 1, size - 1):
        tokens = [*tiny_tokenizer().convert_ids_to_tokens(range(size)), "<more>"][:count]
        metadata = {
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [CONTROL] * 3 + [1] * (count - 3),
        }
        metadata["tokenizer.ggml.merges"] = ["h e"]
        write_gguf(tmp_path / f"{count}.gguf", model, tiny_tokenizer(), metadata=metadata)
    with pytest.raises(ModelError, match=rf"tokens has {size + 1} tokens; tensor .* has {size} rows"):
        open_checkpoint(str(tmp_path / f"{size + 1}.gguf"))
    checkpoint = open_checkpoint(str(tmp_path / f"{size - 1}.gguf"))
    assert (len(checkpoint.tokenizer()), checkpoint.config.vocab_size) == (size - 1, size)


def test_a_file_without_an_end_says_so(tmp_path: Path, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_gguf(tmp_path / "m.gguf", model, None, metadata=vocabulary_of())
    with caplog.at_level(logging.WARNING):
        assert open_checkpoint(str(tmp_path / "m.gguf")).config.eos_token_ids == ()
    assert "names no token that ends a turn" in caplog.text


def test_the_end_of_a_tokenizer_that_is_given(tmp_path: Path, model: Any) -> None:
    write_gguf(tmp_path / "m.gguf", model, None)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    checkpoint = open_checkpoint(str(tmp_path / "m.gguf"), tokenizer=str(tmp_path / "tokenizer"))
    assert checkpoint.config.eos_token_ids == (IM_END,)
