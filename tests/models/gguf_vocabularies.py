"""Texts for tokenizers, and vocabularies of GGUF files that are written out in full."""

from __future__ import annotations

import random
from typing import Any

from tokenizers import pre_tokenizers

from outrider.models.gguf_tokenizer import build_tokenizer

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "In 2024, 1234567 people; 3.14159 and 1,000,000; 007 x86_64 ½ ٣٤ Ⅷ",
    "don't can't we'll I've they're it's I'm he'd DON'T WE'LL \u2019tis don\u2019t",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 🇯🇵 👍🏽!",
    "日本語のテキスト。中文文本\uff0c한국어 텍스트",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # 42\n\n\nclass A:\n\tpass\n",
    "  leading, trailing  \n\n\t\t tabs \r\n and\u00a0no-break\u3000wide   ",
    "Ünïcödé, naïve café, e\u0301 combining, Ωμέγα, Привет, שלום, مرحبا",
    "https://example.com/a?b=c&d=e#f  {'json': [1, 2.5e-10, null]}",
    "a\0b\x7f\ufeffc",
)


def unlikely_texts(count: int) -> list[str]:
    """Random strings of pieces that pre-tokenizers treat differently."""
    draw = random.Random(0)
    pieces = [
        "a",
        "Zy",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1",
        "23",
        "'s",
        "'",
        ".",
        "?!",
        "é",
        "漢",
        "🙂",
        "_",
        "\u00a0",
    ]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 25))) for _ in range(count)]


CONTROL, USER_DEFINED = 3, 4
# A SentencePiece vocabulary: unknown, beginning, end, the bytes, then pieces with their scores.
SPACE = "▁"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = dict.fromkeys((SPACE, *"abc"), -100.0)


def sentencepiece(pieces: dict[str, float], **more: Any) -> dict[str, Any]:
    pieces = LETTERS | pieces
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * (3 + 256) + list(pieces.values()),
        "tokenizer.ggml.token_type": [2, CONTROL, CONTROL] + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in more.items()}


def pieces_of(text: str, metadata: dict[str, Any]) -> list[str]:
    tokenizer = build_tokenizer(metadata, "m.gguf")
    return [tokenizer.id_to_token(i) or "" for i in tokenizer.encode(text)]


def byte_level(**more: Any) -> dict[str, Any]:
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<tool>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, *[1] * 257, USER_DEFINED],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
    }
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in more.items()}
