"""How many characters a token can stand for: a text of more than fit is refused before it is tokenized."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

COMPOSED = 4
"""Characters that Unicode's composition (NFC, NFKC) makes one of, at most: none is decomposed into more."""
KEEPING = frozenset({"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split"})
"""Pre-tokenizers that drop no character, unless they are told to."""
WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))


@dataclass(frozen=True)
class CharacterBound:
    """A token stands for `longest` characters at most, besides those in `uncounted`, which may cost none."""

    longest: int
    uncounted: str

    def excludes(self, text: str, tokens: int) -> bool:
        """Whether the text has more than so many tokens for certain."""
        most = tokens * self.longest
        return len(text) > most and len(text) - sum(map(text.count, self.uncounted)) > most


def bound_of(tokenizer: tokenizers.Tokenizer) -> CharacterBound | None:
    """None where it is not known: an unknown token may stand for any number of characters, and a normalizer
    or a pre-tokenizer may drop some."""
    splits = list(parts(tokenizer.pre_tokenizer))
    if any(part["type"] not in KEEPING or part.get("behavior") == "Removed" for part in splits):
        return None
    factors = [_shrinking(part) for part in parts(tokenizer.normalizer)]
    vocabulary = tokenizer.get_vocab()
    lost = _lost(tokenizer, vocabulary, by_bytes=any(part["type"] == "ByteLevel" for part in splits))
    if lost is None or None in factors:
        return None
    added = tokenizer.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip for token in added):  # it swallows what is beside it
        lost += WHITE_SPACE
    factor = COMPOSED if COMPOSED in factors else 1
    return CharacterBound(factor * max(map(len, vocabulary)), "".join(sorted(set(lost))))


def parts(component: Any) -> Iterator[dict[str, Any]]:
    """The members of a normalizer or a pre-tokenizer, as tokenizer.json writes them."""
    waiting = [] if component is None else [json.loads(component.__getstate__())]
    while waiting:
        part = waiting.pop()
        if part["type"] == "Sequence":
            waiting += part.get("normalizers") or part.get("pretokenizers") or []
        else:
            yield part


def _lost(tokenizer: tokenizers.Tokenizer, vocabulary: Collection[str], *, by_bytes: bool) -> str | None:
    """The characters that no token writes, and that cost none; None where they are not known."""
    if not isinstance(tokenizer.model, BPE):
        return None
    if tokenizer.model.byte_fallback:
        return "" if all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)) else None
    if not by_bytes:
        return None
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def known(code: int) -> bool:
        """Whether there is a token of the character's last byte."""
        return as_bytes.pre_tokenize_str(chr(code))[0][0][-1] in vocabulary

    # A character of several bytes ends in one of 0x80 to 0xBF, as these do.
    if not all(map(known, range(0x80, 0xC0))):
        return None
    return "".join(chr(code) for code in range(0x80) if not known(code))


def _shrinking(normalizer: dict[str, Any]) -> int | None:
    """How many characters a normalizer makes one of at most; None where it is not known."""
    match normalizer:
        case {"type": "NFC" | "NFKC"}:
            return COMPOSED
        case {"type": "NFD" | "NFKD" | "Prepend"}:
            return 1
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if len(new) >= len(
            old
        ):
            return 1
        case _:
            return None
