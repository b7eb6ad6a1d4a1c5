"""The tokenizer in a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_vocabulary import (
    BYTE_LEVEL,
    SENTENCEPIECE,
    TokenTable,
    check_length,
    read_vocabulary,
)

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
NEUTRAL: dict[str, Any] = {
    "tokenizer.ggml.add_sep_token": False,
    "tokenizer.ggml.remove_extra_whitespaces": False,
    "tokenizer.ggml.precompiled_charsmap": [],
    "tokenizer.ggml.suppress_tokens": [],
}
"""Keys that would change the tokens of a text or an answer, and the only values that change nothing."""


def build_tokenizer(values: Mapping[str, Any], source: str) -> PreTrainedTokenizerBase:
    """A fast tokenizer with the special tokens and chat template of a file's metadata. Raises ModelError.

    A pre-tokenizer that is not known is refused: a guess would split text otherwise than in training.
    """
    metadata = Metadata(values, source)
    vocabulary = read_vocabulary(metadata)
    tokens = vocabulary.tokens
    if not tokens:
        raise ModelError(f"{source}: there is no tokenizer in the file; give one with tokenizer=")
    for key, neutral in NEUTRAL.items():
        if values.get(key, neutral) != neutral:
            raise metadata.wrong(key, "it is not supported; give a Hugging Face tokenizer with tokenizer=")
    kind = metadata.text("tokenizer.ggml.model", "")
    if kind == BYTE_LEVEL:
        backend, bos_first = _byte_level_bpe(metadata, tokens)
    elif kind == SENTENCEPIECE:
        backend, bos_first = _sentencepiece(metadata, vocabulary)
    else:
        raise ModelError(
            f"{source}: tokenizer {shown(kind)} is not supported; supported are 'gpt2' and 'llama'; give a "
            "Hugging Face tokenizer with tokenizer="
        )
    backend.add_special_tokens(
        [AddedToken(tokens[i], special=True, normalized=False) for i in vocabulary.control]
    )
    backend.add_tokens([AddedToken(tokens[i], normalized=False) for i in vocabulary.user_defined])

    added = {"bos": bos_first, "eos": False}  # unless the file says otherwise
    added = {role: metadata.flag(f"tokenizer.ggml.add_{role}_token", usual) for role, usual in added.items()}
    for role, adds in added.items():
        if adds and role not in vocabulary.special:
            raise ModelError(
                f"{source}: a token {role.upper()} is added to every text, and "
                f"tokenizer.ggml.{role}_token_id is missing; give a Hugging Face tokenizer with tokenizer="
            )
    special = {role: (tokens[i], i) for role, i in vocabulary.special.items()}
    if any(added.values()):
        before, after = ([special[role][0]] if added[role] else [] for role in ("bos", "eos"))
        backend.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *before, "$B", *after],
            special_tokens=[special[role] for role in added if added[role]],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": special[role][0] for role in ("bos", "eos", "unk", "pad") if role in special},
    )
    tokenizer.chat_template = metadata.text("tokenizer.chat_template", "") or None
    return tokenizer


def _byte_level_bpe(metadata: Metadata, tokens: list[str]) -> tuple[Tokenizer, bool]:
    pre = metadata.values.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        raise ModelError(
            f"{metadata.source}: pre-tokenizer {shown(pre)} is not known; known are "
            f"{', '.join(PRE_TOKENIZERS)}; give the model's Hugging Face tokenizer with tokenizer="
        )
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    for merge in metadata.strings("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            raise ModelError(
                f"{metadata.source}: tokenizer.ggml.merges holds {shown(merge)}, which is not two tokens "
                "with a space between that make a third"
            )
        merges.append((left, right))
    backend = Tokenizer(BPE(ids, merges, ignore_merges=pre in BEGINS_WITH_BOS))
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    return backend, pre in BEGINS_WITH_BOS


def _sentencepiece(metadata: Metadata, vocabulary: TokenTable) -> tuple[Tokenizer, bool]:
    """SentencePiece's BPE: the merge order is that of the scores; unknown characters become bytes."""
    tokens = vocabulary.tokens
    vocab = {token: i for i, token in enumerate(tokens)}
    numbers = metadata.numbers("tokenizer.ggml.scores")
    check_length(metadata, "tokenizer.ggml.scores", len(numbers), len(tokens))
    scores = dict(zip(tokens, numbers, strict=True))
    merges = generate_merges(vocab, scores)
    unknown = tokens[vocabulary.special["unk"]]
    backend = Tokenizer(BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    restore = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*restore, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return backend, True
