"""Tokenizers of the kinds that tokenizer.json can hold, and what may stand beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.factories import tiny_tokenizer

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
LETTERS = [chr(code) for code in range(33, 127)]
SPECIAL = ["<unk>", "<s>", "</s>"]
TEXTS = (" a space first", "two  spaces", "\tna\u00efve \u65e5\u672c \U0001f642\n\n", "don't, 123")
PIECES = (
    "a", "the", "The end", "he", " ", "  ", "\n", "\t", ".", ",", "'s", "1", "23", "\u00e9", "e\u0301",
    "\u65e5\u672c", "\U0001f642", "\ufb01", SPACE, "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>",
    "<l>", "<r>", "<lr>", "<n>", "word", "Word", "x", "<0x0A>", "[CLS]", "<more>",
)  # fmt: skip
ADDED = [
    AddedToken("<l>", lstrip=True, normalized=False),
    AddedToken("<r>", rstrip=True, normalized=False, special=True),
    AddedToken("<lr>", lstrip=True, rstrip=True),
    AddedToken("<N>", normalized=True),
    AddedToken("word", single_word=True, normalized=True),
]


def sentencepiece(prefix: Callable[[], Any] | None = None) -> Tokenizer:
    """As Llama 2's tokenizer.json: a space before every text, spaces as marks, bytes for the rest."""
    merges = [(SPACE, letter) for letter in LETTERS] + [(SPACE, SPACE)]
    tokens = [*SPECIAL, *(f"<0x{code:02X}>" for code in range(256)), SPACE, *LETTERS]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    if prefix is None:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
    else:
        backend.pre_tokenizer = prefix()
    restore = [
        decoders.Replace(SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    backend.decoder = decoders.Sequence(restore)
    backend.add_special_tokens(SPECIAL)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def metaspace(scheme: str) -> Callable[[], Tokenizer]:
    return lambda: sentencepiece(lambda: pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False))


def byte_level(prefix_space: bool = False) -> Tokenizer:
    backend: Tokenizer = tiny_tokenizer().backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.normalizer = normalizers.NFC()
    return backend


def wordpiece() -> Tokenizer:
    words = ["[UNK]", "[CLS]", "[SEP]", "the", "end", "##s", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    model = models.WordPiece({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="[UNK]")
    backend = Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return backend


def unigram() -> Tokenizer:
    pieces = [*((token, 0.0) for token in SPECIAL), (SPACE, -2.0), *((letter, -3.0) for letter in LETTERS)]
    backend = Tokenizer(models.Unigram([*pieces, (f"{SPACE}the", -4.0)], 0, False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    backend.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    return backend


def with_added(make: Callable[[], Tokenizer]) -> Callable[[], Tokenizer]:
    def made() -> Tokenizer:
        backend = make()
        backend.add_tokens([AddedToken(**token.__getstate__()) for token in ADDED])
        return backend

    return made


def trained(make: Callable[[], Tokenizer]) -> Callable[[], Tokenizer]:
    """As it is saved after training: texts are cut and filled up."""

    def made() -> Tokenizer:
        backend = make()
        backend.enable_truncation(3)
        backend.enable_padding(length=5, pad_token="<s>")
        return backend

    return made


BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "sentencepiece": sentencepiece,
    "metaspace-first": metaspace("first"),
    "metaspace-always": metaspace("always"),
    "byte-level": byte_level,
    "byte-level-prefix": lambda: byte_level(prefix_space=True),
    "wordpiece": wordpiece,
    "unigram": unigram,
    "sentencepiece-added": with_added(sentencepiece),
    "byte-level-added": with_added(byte_level),
    "trained": trained(sentencepiece),
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
PLAIN = {"content": "<more>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
DECODER = {
    "259": PLAIN | {"special": False},
    "2": PLAIN | {"content": "</s>", "rstrip": True, "special": True},
    "999": PLAIN | {"content": "<n>", "lstrip": True, "normalized": False, "special": True},
}
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "names": {"tokenizer_config.json": NAMES},
    "for other classes": {
        "tokenizer_config.json": NAMES
        | {"add_bos_token": False, "add_eos_token": True, "legacy": False, "add_prefix_space": True}
        | {"tokenizer_class": "LlamaTokenizer", "model_max_length": 7, "sp_model_kwargs": {}}
    },
    "legacy": {"tokenizer_config.json": NAMES | {"legacy": True, "add_prefix_space": False}},
    "clean up": {"tokenizer_config.json": NAMES | {"clean_up_tokenization_spaces": True}},
    "split": {"tokenizer_config.json": NAMES | {"split_special_tokens": True}},
    "added": {"tokenizer_config.json": NAMES | {"added_tokens_decoder": DECODER}},
    "named alone": {
        "tokenizer_config.json": {"added_tokens_decoder": DECODER, "pad_token": "<n>", "eos_token": "<more>"}
    },
    "not there": {"tokenizer_config.json": {"bos_token": "<b>", "pad_token": "<more>", "mask_token": "x"}},
    "objects": {
        "tokenizer_config.json": {"bos_token": {"__type": "AddedToken"} | PLAIN | {"lstrip": True}},
    },
    "extra": {
        "tokenizer_config.json": NAMES
        | {"additional_special_tokens": ["<more>", "word"], "image_token": "<image>"}
    },
    "extra objects": {
        "tokenizer_config.json": NAMES
        | {"extra_special_tokens": [{"__type": "AddedToken"} | PLAIN | {"single_word": True}, "<n>"]}
    },
    "extra named": {
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<n>", "audio_token": "<more>"}}
    },
    "map": {
        "tokenizer_config.json": {"bos_token": "a"},
        "special_tokens_map.json": {"bos_token": PLAIN, "eos_token": "</s>", "cls_token": "<n>"},
    },
    "map of more": {
        "tokenizer_config.json": {"pad_token": "<p>", "image_token": "<i>"},
        "special_tokens_map.json": {"eos_token": "<e>", "additional_special_tokens": ["<x>"]},
    },
    "map that is not read": {
        "tokenizer_config.json": {"bos_token": "<s>", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"bos_token": "<more>", "eos_token": "</s>"},
    },
    "older": {
        "tokenizer_config.json": {"pad_token": "<n>"},
        "special_tokens_map.json": {"eos_token": "</s>"},
        "added_tokens.json": {"<more>": 2000, "<n>": 1999, "<lr>": 1, "word": 2001},
    },
}


def write(path: Path, backend: Tokenizer, files: dict[str, dict[str, Any]]) -> Path:
    path.mkdir(exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    for name, contents in files.items():
        (path / name).write_text(json.dumps(contents))
    return path
