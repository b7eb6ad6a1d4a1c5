"""The tokens that a GGUF file lists, and those among them that have a part to play.

Which tokens end a turn is found as llama.cpp finds it (src/llama-vocab.cpp, `special_eog_ids`): by the keys
of the metadata, and by the texts that chat models are known to end a turn with. Files name one token or none,
and often not the one that the chat template ends with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.end_texts import END_TEXTS, ends_among
from outrider.models.gguf_metadata import Metadata

TOKENS = "tokenizer.ggml.tokens"
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # values of tokenizer.ggml.token_type
LONGEST = 1024  # characters of a token: what is done for one grows with its square
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # values of tokenizer.ggml.model
ROLES = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "unk": "unknown", "pad": "padding"}
"""The part that a token plays, as the field names it, and as the file's keys do."""
ENDS = ("eos", "eot", "eom")
USUAL = {"unk": 0, "bos": 1, "eos": 2}


@dataclass(frozen=True)
class TokenTable:
    """tokens: by id; special: ids by role; ends: ids of tokens that end a turn;
    control, user_defined: ids of tokens that are found in a text before it is split."""

    tokens: list[str]
    special: Mapping[str, int]
    ends: frozenset[int]
    control: list[int]
    user_defined: list[int]


def read_vocabulary(metadata: Metadata, rows: int = 2**31) -> TokenTable:
    """Raises ModelError for metadata that contradict themselves.

    A file without tokens gives an empty vocabulary, whose special ids are those of the keys; they have to be
    less than `rows`, those of the embedding.
    """
    tokens = metadata.strings(TOKENS)
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise ModelError(f"{metadata.source}: tokenizer.ggml.tokens holds {shown(twice)} twice")
    longest = max(tokens, key=len, default="")
    if len(longest) > LONGEST:
        raise ModelError(
            f"{metadata.source}: tokenizer.ggml.tokens holds {shown(longest)} of {len(longest)} characters; "
            f"{LONGEST} are the most"
        )
    types = metadata.integers("tokenizer.ggml.token_type") or [0] * len(tokens)
    check_length(metadata, "tokenizer.ggml.token_type", len(types), len(tokens))
    special = _special(metadata, len(tokens) or rows)
    ends = _ends_by_text(metadata, ids, types)
    named = {i for role, i in special.items() if role in ENDS}
    return TokenTable(
        tokens,
        special,
        frozenset(ends | named),
        [i for i, kind in enumerate(types) if kind == CONTROL or i in ends],
        [i for i, kind in enumerate(types) if kind == USER_DEFINED and i not in ends],
    )


def check_length(metadata: Metadata, key: str, count: int, tokens: int) -> None:
    """Raises ModelError if an array does not have one value for each token."""
    if count != tokens:
        raise ModelError(
            f"{metadata.source}: {key} has {count} values for the {tokens} tokens of tokenizer.ggml.tokens"
        )


def _special(metadata: Metadata, count: int) -> dict[str, int]:
    """SentencePiece's usual ids stand in for keys that are missing, as in llama.cpp."""
    special = {}
    if metadata.text("tokenizer.ggml.model", "") == SENTENCEPIECE:
        special = {role: i for role, i in USUAL.items() if i < count}
    for role, name in ROLES.items():
        key = f"tokenizer.ggml.{name}_token_id"
        if key in metadata:
            token = metadata.integer(key, below=2**32)
            if token < count:
                special[role] = token
            elif role != "pad":  # nothing is padded here, and llama.cpp's own small files have 2**32 - 1
                raise metadata.wrong(
                    key, f"the vocabulary has {count} tokens, and their ids are less than that"
                )
    return special


def _ends_by_text(metadata: Metadata, ids: Mapping[str, int], types: list[int]) -> set[int]:
    """Known ends, whatever their type, but for those that ordinary text can become a token of."""
    known = set(END_TEXTS & ids.keys())
    if any(types[ids[token]] == NORMAL for token in known):
        if metadata.text("tokenizer.ggml.model", "") == SENTENCEPIECE:
            spelt = known
        else:
            spelt = {merge.replace(" ", "") for merge in metadata.strings("tokenizer.ggml.merges")}
        known -= {token for token in known & spelt if types[ids[token]] == NORMAL}
    return {ids[token] for token in ends_among(known)}
