"""The tokenizer in a GGUF file's metadata."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from outrider.errors import ModelError
from outrider.messages import listed, shown
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_vocabulary import (
    BYTE_LEVEL,
    GEMMA4,
    MERGES,
    NAMED,
    SENTENCEPIECE,
    TokenTable,
    check_length,
    read_vocabulary,
)
from outrider.models.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from outrider.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
NEUTRAL: dict[str, Any] = {
    "tokenizer.ggml.remove_extra_whitespaces": False,
    "tokenizer.ggml.precompiled_charsmap": [],
}
"""Keys that would change the tokens of a text or an answer, and the only values that change nothing."""
OTHER_MODELS = {
    "bert": "WordPiece",
    "t5": "unigram",
    "rwkv": "the longest token that fits",
    "plamo2": "unigram of its own",
    "whitespace": "words between spaces",
    "hybriddna": "DNA in pieces of six bases",
}
OTHER_PRE_TOKENIZERS = {
    "gemma4": "merges over SentencePiece's pieces",
    "sarvam-moe": "merges over SentencePiece's pieces",
    "granite-embed-multi-311m": "merges over SentencePiece's pieces",
    "whitespace": "words between spaces",
}
GIVE = "give the model's Hugging Face tokenizer with tokenizer="
LONGEST_NAME = 40  # characters of a pre-tokenizer's name that are compared with others
STRIPPED_AFTER = re.compile(r"phi-?3")  # models whose special tokens take the space after them along
NOT_STRIPPED = ("<unk>", "<s>", "<|endoftext|>")


def build_tokenizer(values: Mapping[str, Any], source: str) -> Tokenizer:
    """A tokenizer with the special tokens and chat template of a file's metadata. Raises ModelError.

    A pre-tokenizer that is not known is refused: a guess would split text otherwise than in training. A file
    that names none is read as llama.cpp reads it, with a warning.
    """
    metadata = Metadata(values, source)
    vocabulary = read_vocabulary(metadata)
    if not vocabulary.tokens:
        raise ModelError(f"{source}: there is no tokenizer in the file; give one with tokenizer=")
    for key, neutral in NEUTRAL.items():
        if values.get(key, neutral) != neutral:
            raise metadata.wrong(key, f"it is not supported; {GIVE}")
    metadata.flag("tokenizer.ggml.add_sep_token", False)  # of a pair of texts, which there is none of here
    parts = _parts(metadata, vocabulary)

    backend = tokenizers.Tokenizer(parts.model)
    backend.post_processor = _template(metadata, vocabulary, bos=parts.bos)
    backend.decoder = parts.decoder
    if parts.normalizer is not None:
        backend.normalizer = parts.normalizer
    if parts.words is not None:
        backend.pre_tokenizer = parts.words
    backend.add_special_tokens(_added(metadata, vocabulary, vocabulary.control, special=True))
    backend.add_tokens(_added(metadata, vocabulary, vocabulary.user_defined, special=False))
    special = {
        f"{role}_token": vocabulary.tokens[vocabulary.special[role]]
        for role in NAMED
        if role in vocabulary.special
    }
    template = metadata.text("tokenizer.chat_template", "")
    return Tokenizer(backend, special, {"default": template} if template else {})


@dataclass(frozen=True)
class _Parts:
    """What makes tokens of a text, and text of tokens. bos: a text begins with BOS, unless the file says."""

    model: Any
    decoder: Any
    normalizer: Any
    words: Any
    bos: bool


def _parts(metadata: Metadata, vocabulary: TokenTable) -> _Parts:
    kind = metadata.text("tokenizer.ggml.model", "")
    if kind == BYTE_LEVEL:
        return _byte_level(metadata, vocabulary)
    if kind == SENTENCEPIECE:
        return _sentencepiece(metadata, vocabulary)
    if kind == GEMMA4:
        return _gemma4(metadata, vocabulary)
    what = f" ({OTHER_MODELS[kind]})" if kind in OTHER_MODELS else ""
    raise ModelError(
        f"{metadata.source}: tokenizer {shown(kind)} is not supported{what}; supported are "
        f"{listed((BYTE_LEVEL, SENTENCEPIECE, GEMMA4))}; {GIVE}"
    )


def _template(metadata: Metadata, vocabulary: TokenTable, *, bos: bool) -> Any:
    """What is put before and after a text. Raises ModelError if the file asks for a token and names none."""
    usual = {"bos": bos, "eos": False}
    around: dict[str, list[str]] = {}
    tokens = []
    for role, adds in usual.items():
        key = f"tokenizer.ggml.add_{role}_token"
        around[role] = []
        if not metadata.flag(key, adds):
            continue
        token = vocabulary.special.get(role)
        if token is not None:
            around[role] = [vocabulary.tokens[token]]
            tokens.append((vocabulary.tokens[token], token))
        elif key in metadata:
            raise ModelError(
                f"{metadata.source}: a token {role.upper()} is added to every text, and "
                f"tokenizer.ggml.{role}_token_id is missing; {GIVE}"
            )
        else:
            logger.warning(
                "%s: models with this pre-tokenizer begin a text with BOS, and "
                "tokenizer.ggml.bos_token_id is missing; texts begin without",
                metadata.source,
            )
    before, after = around["bos"], around["eos"]
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B", *after],
        special_tokens=tokens,
    )


def _added(metadata: Metadata, vocabulary: TokenTable, ids: list[int], *, special: bool) -> list[AddedToken]:
    """Tokens that are found in a text before it is split."""
    names = (metadata.text("general.architecture", ""), metadata.text("general.name", ""))
    sentencepiece = metadata.text("tokenizer.ggml.model", "") == SENTENCEPIECE
    strips = sentencepiece and any(STRIPPED_AFTER.search(name.lower().replace(" ", "-")) for name in names)
    return [
        AddedToken(token, special=special, normalized=False, rstrip=strips and token not in NOT_STRIPPED)
        for token in (vocabulary.tokens[i] for i in ids)
    ]


def _byte_level(metadata: Metadata, vocabulary: TokenTable) -> _Parts:
    words = _pre_tokenizer(metadata)
    model = _of_merges(metadata, vocabulary, ignore_merges=words.ignore_merges)
    normalizer = normalizers.NFC() if words.nfc else None
    return _Parts(model, decoders.ByteLevel(), normalizer, words.build(), words.bos)


def _gemma4(metadata: Metadata, vocabulary: TokenTable) -> _Parts:
    """Pieces as SentencePiece writes them, and the merges of the model's tokenizer.json.

    llama.cpp splits a text at line ends first. The model's own tokenizer does not, and no token goes over
    one.
    """
    key = "tokenizer.ggml.add_space_prefix"
    if metadata.flag(key, False):
        raise metadata.wrong(key, f"no Gemma 4 puts a space before a text; {GIVE}")
    unknown = vocabulary.tokens[vocabulary.special["unk"]] if "unk" in vocabulary.special else None
    model = _of_merges(metadata, vocabulary, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    return _Parts(
        model, decoders.Sequence(_restoring_spaces()), normalizers.Replace(" ", SPACE), None, bos=True
    )


def _of_merges(metadata: Metadata, vocabulary: TokenTable, **how: Any) -> Any:
    """The BPE model of a file that lists its merges. Raises ModelError for a list that is none."""
    if MERGES not in metadata:
        raise ModelError(f"{metadata.source}: metadata {MERGES!r} is missing; {GIVE}")
    merges = metadata.strings(MERGES)
    try:
        return BPE(vocabulary.ids, [merge.partition(" ")[::2] for merge in merges], **how)
    except Exception as error:
        raise _wrong_merge(metadata, vocabulary, merges) from error


def _wrong_merge(metadata: Metadata, vocabulary: TokenTable, merges: list[str]) -> ModelError:
    """The error for the first merge that is none."""
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.ids.keys():
            return ModelError(
                f"{metadata.source}: {MERGES} holds {shown(merge)}, which is not two tokens with a space "
                "between that make a third"
            )
    return ModelError(f"{metadata.source}: {MERGES} is not a list of merges; {GIVE}")


def _pre_tokenizer(metadata: Metadata) -> PreTokenizer:
    key = "tokenizer.ggml.pre"
    name = metadata.text(key, "") or "default"
    if name == "default":
        logger.warning(
            "%s: %s; text is split into words as llama.cpp does then, which may be otherwise than in "
            "training; if so, %s",
            metadata.source,
            f"{key} = 'default'" if key in metadata else f"{key} is missing",
            GIVE,
        )
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    if name in OTHER_PRE_TOKENIZERS:
        what = f"is not supported ({OTHER_PRE_TOKENIZERS[name]})"
    else:
        near = difflib.get_close_matches(name[:LONGEST_NAME], PRE_TOKENIZERS, cutoff=0.5)
        what = "is not known" + (f"; near it are {listed(near)}" if near else "")
    raise ModelError(f"{metadata.source}: pre-tokenizer {shown(name)} {what}; {GIVE}")


def _sentencepiece(metadata: Metadata, vocabulary: TokenTable) -> _Parts:
    """SentencePiece's BPE: the merge order is that of the scores; unknown characters become bytes.

    A space is put before a text, and before what follows a special token. Mistral's tokenizer since v3, which
    is known by its control token, puts it before a text alone that does not begin with one: the chat template
    writes the others.
    """
    unknown = vocabulary.tokens[vocabulary.special["unk"]]
    merges = list(_merges(metadata, vocabulary))
    model = BPE(vocabulary.ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    prefix = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    decoder = decoders.Sequence([*_restoring_spaces(), *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    instruction = vocabulary.ids.get("[INST]")
    if prefix and instruction in vocabulary.control:
        first = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
        return _Parts(model, decoder, None, first, bos=True)
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    return _Parts(
        model, decoder, normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)]), None, bos=True
    )


def _restoring_spaces() -> list[Any]:
    """From pieces back to text."""
    return [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]


def _merges(metadata: Metadata, vocabulary: TokenTable) -> Iterator[tuple[str, str]]:
    """All pairs of tokens that make a third, the best third first.

    Letters that spell a control token or a byte stay letters.
    """
    ids, tokens, control = vocabulary.ids, vocabulary.tokens, set(vocabulary.control)
    key = "tokenizer.ggml.scores"
    scores = metadata.numbers(key)
    check_length(metadata, key, len(scores), len(tokens))
    for i in sorted(range(len(tokens)), key=scores.__getitem__, reverse=True):
        token = tokens[i]
        if i in control or BYTE.fullmatch(token):
            continue
        for cut in range(len(token) - 1, 0, -1):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                yield left, right
