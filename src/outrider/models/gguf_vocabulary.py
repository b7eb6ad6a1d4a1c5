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

TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(5)  # values of tokenizer.ggml.token_type
LONGEST = 1024  # characters of a token: what is done for one grows with its square
BYTE_LEVEL, SENTENCEPIECE, GEMMA4 = "gpt2", "llama", "gemma4"  # values of tokenizer.ggml.model
NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""The tokens that a tokenizer knows by a name, and what the file's keys call them."""
ENDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
ROLES = {role: role for role in ENDS} | NAMED
USUAL = {"unk": 0, "bos": 1, "eos": 2}


@dataclass(frozen=True)
class TokenTable:
    """tokens: by id; ids: by token; special: ids by role; ends: ids of tokens that end a turn.

    control: ids of tokens that are found in a text before it is split, and that a decoded text leaves out;
    user_defined: of those that are found so and are text.
    """

    tokens: list[str]
    ids: dict[str, int]
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
    if "" in tokens:  # which no text becomes; several may stand in for ids that are not used
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise ModelError(
            f"{metadata.source}: {TOKENS} holds {shown(twice)} twice, as id {tokens.index(twice)} and "
            f"{ids[twice]}; each token needs a text of its own"
        )
    longest = max(tokens, key=len, default="")
    if len(longest) > LONGEST:
        raise ModelError(
            f"{metadata.source}: {TOKENS} holds {shown(longest)} of {len(longest)} characters; "
            f"{LONGEST} are the most"
        )
    types = metadata.integers("tokenizer.ggml.token_type") or [UNDEFINED] * len(tokens)
    check_length(metadata, "tokenizer.ggml.token_type", len(types), len(tokens))
    special = _special(metadata, len(tokens) or rows)
    named = {i for role, i in special.items() if role in ENDS}
    ends = _ends_by_text(metadata, ids, types) | named
    # A named token that the file calls an ordinary one stays that: converters fill in a padding token so.
    control = ends | {i for role, i in special.items() if role in NAMED and types and types[i] != NORMAL}
    control |= {i for i, kind in enumerate(types) if kind in (UNKNOWN, CONTROL)}
    user_defined = [i for i, kind in enumerate(types) if kind == USER_DEFINED and i not in control]
    return TokenTable(tokens, ids, special, frozenset(ends), sorted(control), user_defined)


def check_length(metadata: Metadata, key: str, count: int, tokens: int) -> None:
    """Raises ModelError if an array does not have one value for each token."""
    if count != tokens:
        raise ModelError(f"{metadata.source}: {key} has {count} values for the {tokens} tokens of {TOKENS}")


def _special(metadata: Metadata, count: int) -> dict[str, int]:
    """SentencePiece's usual ids stand in for keys that are missing, as in llama.cpp.

    Its usual id of a byte-level vocabulary, 11, was that of one model, and stands in for nothing here.
    """
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
    normal = {token for token in known if types[ids[token]] == NORMAL}
    if normal and metadata.text("tokenizer.ggml.model", "") != SENTENCEPIECE:
        merges = {f"{token[:i]} {token[i:]}": token for token in normal for i in range(1, len(token))}
        normal = {merges[merge] for merge in merges.keys() & set(metadata.strings(MERGES))}
    return {ids[token] for token in ends_among(known - normal)}
