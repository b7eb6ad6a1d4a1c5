"""Small tokenizers of the kinds that models have, trained on a few sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from outrider.models.tokenizer import Tokenizer as OurTokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and the dog isn't amused.",
    "def merge(left, right):\n    while left and right:\n        return left[0] + right\n",
    "In 2026 there were 12345 foxes; there won't be as many in 2027, will there?",
    "Über allen Gipfeln ist Ruh, naïve café — «étude»… 日本語の文 \U0001f642\U0001f642",
    "the other thing that they thought there then was another one\n\n- one\n- two\n",
)
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
GPT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(pattern: str, size: int, *special: str, nfc: bool = False) -> OurTokenizer:
    """As GPT-2's, with its words or others."""
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    if nfc:
        backend.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return OurTokenizer(backend, {"eos_token": special[0]} if special else {})


def sentencepiece(size: int, scheme: str, *special: str, bos: bool = True) -> OurTokenizer:
    """As Llama's: spaces are letters, unknown characters are bytes. scheme: 'prepend' puts a space before
    texts as older files do, others are Metaspace's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    trainer = BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", "</s>", *BYTES], show_progress=False
    )
    backend.train_from_iterator(TEXTS[:3], trainer)
    backend.model.unk_token = "<unk>"
    backend.model.fuse_unk = True
    backend.model.byte_fallback = True
    trained = backend.model
    backend = Tokenizer(trained)
    if scheme == "prepend":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    named = ("<unk>", "<s>", "</s>", *special)
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in named])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=["<s>", "$A"], special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return OurTokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def unigram(size: int) -> OurTokenizer:
    """SentencePiece's other model, without bytes: what it has not seen is unknown."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    backend.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    trainer = UnigramTrainer(
        vocab_size=size, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return OurTokenizer(backend, {"unk_token": "<unk>"})


def with_runs_of_spaces(size: int) -> OurTokenizer:
    """As GPT-NeoX's: longer runs of spaces are tokens that were added."""
    made = byte_level(GPT, size, "<|endoftext|>")
    made.backend.add_tokens([" " * length for length in (8, 4, 2)])
    return made


def of_bytes(special: tuple[str, ...] = (), *, reverse: bool = False) -> OurTokenizer:
    """Each byte is a token: a text can be spelt in one way alone."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=reverse)
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return OurTokenizer(backend, {"eos_token": special[0]} if special else {})


KINDS: dict[str, Callable[[], OurTokenizer]] = {
    "gpt": lambda: byte_level(GPT, 400, "<|im_end|>", "<|im_start|>"),
    "qwen": lambda: byte_level(QWEN, 330, "<|im_end|>", "<|im_start|>", nfc=True),
    "llama, prepend": lambda: sentencepiece(500, "prepend"),
    "llama, first": lambda: sentencepiece(420, "first", "<|im_end|>"),
    "mistral": lambda: sentencepiece(460, "never", "[INST]", bos=False),
    "neox": lambda: with_runs_of_spaces(380),
    "bytes": of_bytes,
}
"""Those that can write any text."""


def changed(made: OurTokenizer, **parts: Any) -> OurTokenizer:
    """The same with other parts, which may change a text."""
    backend = Tokenizer.from_str(made.backend.to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    return OurTokenizer(backend, made.special_tokens)
