"""Gemma 4's tokenizer in a GGUF file: SentencePiece's pieces, with the merges of tokenizer.json."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GemmaTokenizer

from outrider.errors import ModelError
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_tokenizer import build_tokenizer
from outrider.models.gguf_vocabulary import read_vocabulary
from tests.models.gguf_vocabularies import BYTES, CONTROL, TEXTS, USER_DEFINED, unlikely_texts

NAMED = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool_response>", "<turn|>"]
MERGES = [
    "\n \n",
    "\n\n \n",
    "▁ ▁",
    "▁ a",
    "t h",
    "th e",
    "▁ the",
    "a n",
    "an d",
    "▁a n",
    "i n",
    "\n a",
    "2 3",
]
LETTERS = ["▁", "\n", *"abcdefghijklmnopqrstuvwxyz0123456789.,'é漢"]
PIECES = [*LETTERS, *(merge.replace(" ", "") for merge in MERGES)]


def gemma4(**more: Any) -> dict[str, Any]:
    """The metadata, as llama.cpp's converter writes them."""
    tokens = [*NAMED, "</s>", *BYTES, *PIECES]
    metadata = {
        "model": "gemma4",
        "tokens": tokens,
        "scores": [-1000.0] * len(tokens),
        "token_type": [CONTROL] * 5 + [USER_DEFINED] * 3 + [6] * 256 + [1] * len(PIECES),
        "merges": MERGES,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "unknown_token_id": 3,
        "padding_token_id": 0,
        "mask_token_id": 4,
        "add_bos_token": True,
        "add_space_prefix": False,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (metadata | more).items() if value is not None}


def test_it_is_the_models_own() -> None:
    """The oracle is the class that transformers has for it, made of the same tokens and merges."""
    metadata = gemma4()
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    own = GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    read = build_tokenizer(metadata, "m.gguf")
    for text in (*TEXTS, *unlikely_texts(300), "and the thin end\n\n\n\n\na  \n the 2323"):
        expected = own(text, add_special_tokens=False)["input_ids"]
        assert read.encode(text) == [2, *expected], text
        assert read.decode(read.encode(text), skip_special_tokens=True) == text


def test_pieces_and_special_tokens() -> None:
    tokenizer = build_tokenizer(gemma4(), "m.gguf")
    ids = tokenizer.encode("the 漢🙂<turn|>\n\n\nand")
    assert [tokenizer.id_to_token(i) for i in ids] == [
        *("<bos>", "the", "▁", "漢", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "<turn|>", "\n\n\n", "and"),
    ]


def test_ends_of_a_turn() -> None:
    """`</s>` is a mark of HTML there, and ends nothing."""
    vocabulary = read_vocabulary(Metadata(gemma4(), "m.gguf"))
    ends = {vocabulary.tokens[i] for i in vocabulary.ends}
    assert ends == {"<eos>", "<turn|>", "<|tool_response>"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"merges": None}, "metadata 'tokenizer.ggml.merges' is missing"),
        ({"merges": ["a zz"]}, "holds 'a zz', which is not two tokens"),
        ({"add_space_prefix": True}, "add_space_prefix = True; no Gemma 4 puts a space before a text"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=rf"m\.gguf: .*{said}"):
        build_tokenizer(gemma4(**changed), "m.gguf")
