"""The tokenizer in a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from outrider.errors import ModelError

CONTROL, USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*, use_regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _digit_by_digit() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _llama_3() -> Any:
    words = pre_tokenizers.Split(Regex(LLAMA_3_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence([words, _byte_level(use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "gpt-2": _byte_level,
    "smollm": _digit_by_digit,
    "llama-bpe": _llama_3,
    "llama3": _llama_3,
}
BEGINS_WITH_BOS = ("llama-bpe", "llama3")  # unless the file says otherwise


def build_tokenizer(metadata: Mapping[str, Any], source: str) -> PreTrainedTokenizerBase:
    """A fast tokenizer with the file's special tokens and chat template. Raises ModelError.

    A pre-tokenizer that is not known is refused: a guess would split text otherwise than in training.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not tokens:
        raise ModelError(f"{source}: there is no tokenizer in the file; give one with tokenizer=")
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend, bos_first = _byte_level_bpe(metadata, tokens, source)
    elif kind == "llama":
        backend, bos_first = _sentencepiece(metadata, tokens)
    else:
        raise ModelError(
            f"{source}: tokenizer {kind!r} is not supported; supported are 'gpt2' and 'llama'; give a "
            "Hugging Face tokenizer with tokenizer="
        )
    types = metadata.get("tokenizer.ggml.token_type", [])
    backend.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, k in zip(tokens, types, strict=False)
            if k == CONTROL
        ]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=False) if k == USER_DEFINED]
    )

    named = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in named.items()}
    special = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
    if metadata.get("tokenizer.ggml.add_bos_token", bos_first) and "bos_token" in special:
        bos = special["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ids["bos"])]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def _byte_level_bpe(metadata: Mapping[str, Any], tokens: list[str], source: str) -> tuple[Tokenizer, bool]:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise ModelError(
            f"{source}: pre-tokenizer {pre!r} is not known; known are {', '.join(PRE_TOKENIZERS)}; give the "
            "model's Hugging Face tokenizer with tokenizer="
        )
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", [])]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(BPE(vocab, merges, ignore_merges=pre in BEGINS_WITH_BOS))
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    return backend, pre in BEGINS_WITH_BOS


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> tuple[Tokenizer, bool]:
    """SentencePiece's BPE: the merge order is that of the scores; unknown characters become bytes."""
    vocab = {token: i for i, token in enumerate(tokens)}
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    merges = generate_merges(vocab, scores)
    backend = Tokenizer(BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    restore = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*restore, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return backend, True
