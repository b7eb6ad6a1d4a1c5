"""What a tokenizer's tokens spell: the bytes of a token, and the tokens of any bytes.

The library's own `encode` and `decode` are for whole texts. Here a text may begin and end anywhere, within a
character too, and every token is known by the bytes that it stands for, so that a text can be handed from one
tokenizer to another and be cut where a token ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from outrider.models.characters import KEEPING, parts
from outrider.models.tokenizer import Tokenizer

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""
ESCAPED = "\udc80-\udcff"
"""How a byte that is part of no character stands in a string."""
COMPOSING = frozenset({"NFC", "NFKC"})
"""Normalizers that write the same text in other characters. They are left out here."""

Piece = tuple[int, int]
"""A token, and where in the text it ends."""


def unspeakable(tokenizer: Tokenizer) -> str | None:
    """Why the text of a tokenizer's tokens is not the text that they were made of; None where it is."""
    backend = tokenizer.backend
    if not isinstance(backend.model, (BPE, Unigram)):
        return f"its model is {type(backend.model).__name__}, whose tokens do not say where spaces are"
    if isinstance(backend.model, BPE):
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            if mark := getattr(backend.model, name):
                return f"its tokens carry {name} = {mark!r}"
    for part in parts(backend.normalizer):
        if part["type"] not in COMPOSING and not _writes_spaces(part):
            return f"its normalizer {part['type']} changes a text"
    for part in parts(backend.pre_tokenizer):
        if part["type"] not in KEEPING or part.get("behavior") == "Removed":
            return f"its pre-tokenizer {part['type']} drops parts of a text"
    return None


class Spelling:
    """The tokens of a model and what they spell. rows: of its embedding table; tokens beyond it are none.

    `unspeakable` must have nothing against the tokenizer. Normalizers that compose characters are left out. A
    text is never given tokens before it or after it; special tokens that it spells out are found in it.

    special: ids of special tokens by their text; begins: the token that the tokenizer puts before any text.
    """

    def __init__(self, tokenizer: Tokenizer, rows: int) -> None:
        backend = tokenizer.backend
        normal, words = list(parts(backend.normalizer)), list(parts(backend.pre_tokenizer))
        self._id_to_token = tokenizer.id_to_token
        self._model = backend.model
        self._by_bytes = any(part["type"] == "ByteLevel" for part in words)
        self._spaces = any(map(_writes_spaces, [*normal, *words]))
        self._fallback = bool(getattr(backend.model, "byte_fallback", False))
        self._always = (
            any(part["type"] == "Prepend" for part in normal)
            or any(part.get("prepend_scheme") == "always" for part in words)
            or any(part.get("add_prefix_space") is True for part in words if part["type"] == "ByteLevel")
        )
        self._first = any(part.get("prepend_scheme") == "first" for part in words)
        self._doubles = any(part["type"] == "Prepend" for part in normal)

        # The same model without what is done to a whole text, and without added tokens. It shares the tables.
        self._words = tokenizers.Tokenizer(backend.model)
        if any(part["type"] == "Replace" for part in normal):
            self._words.normalizer = normalizers.Replace(" ", SPACE)
        if backend.pre_tokenizer is not None:
            self._words.pre_tokenizer = _without_lead(backend.pre_tokenizer)

        added = {i: token for i, token in backend.get_added_tokens_decoder().items() if i < rows}
        self._added = {i: self._plain(token.content) for i, token in added.items()}
        self._ids = {text: i for i, text in self._added.items()}
        self.special = {token.content: i for i, token in added.items() if token.special}
        self.size = min(rows, 1 + max(tokenizer.get_vocab().values(), default=0))
        """Ids from here on are no tokens."""
        before = tokenizer.encode("")[:1]
        self.begins = before[0] if before and before[0] == tokenizer.bos_token_id else None
        self._cut = _cut(
            sorted(filter(None, self._ids), key=len, reverse=True), SPACE if self._spaces else ""
        )
        self._known: dict[int, bytes] = {}

    def opens(self, *, first: bool) -> bool:
        """Whether a space is put before a text that follows a special token, or is the first of all."""
        return self._always or (first and self._first)

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token spells; none for what is no token."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._spelt(token)
        return known

    def pieces(self, text: bytes, *, opening: bool = False) -> list[Piece]:
        """The tokens of a text. opening: a space is put before it, which no token's end counts.

        A byte that the vocabulary lacks has no token; the token after it, if there is one, ends behind both.
        """
        found: list[Piece] = []
        start = 0
        for number, part in enumerate(self._cut.split(text.decode("utf-8", "surrogateescape"))):
            data = part.encode("utf-8", "surrogateescape")
            if number % 2 == 0:
                lead = " " if opening and part and (self._doubles or not part.startswith(" ")) else ""
                if part:
                    ids = self._words.encode(lead + part, add_special_tokens=False).ids
                    found += self._placed(ids, lead.encode() + data, start - len(lead), start)
                opening = False
            elif part in self._ids:
                found.append((self._ids[part], start + len(data)))
                opening = self._always
            else:
                found += self._placed(self._of_bytes(data), data, start, start)
            start += len(data)
        return found

    def _placed(self, ids: list[int], data: bytes, start: int, least: int) -> list[Piece]:
        """Where each token ends, if `data` begins at `start`; nowhere before `least`."""
        found, at = [], 0
        for token in ids:
            spelt = self.bytes_of(token)
            # What the vocabulary lacks was dropped, or is an unknown token, which spells nothing of the text.
            place = data.find(spelt, at)
            at = place + len(spelt) if place >= 0 else at
            found.append((token, max(least, start + at)))
        return found

    def _of_bytes(self, data: bytes) -> list[int]:
        """The tokens of bytes that are part of no character, or may not be written as one."""
        if self._by_bytes:
            return [token.id for token in self._model.tokenize("".join(LETTERS[byte] for byte in data))]
        if not self._fallback:
            return []
        ids = (self._model.token_to_id(f"<0x{byte:02X}>") for byte in data)
        return [token for token in ids if token is not None]

    def _spelt(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text = self._id_to_token(token) if token < self.size else None
        if text is None:
            return b""
        if self._by_bytes and BYTES.keys() >= set(text):
            return bytes(BYTES[letter] for letter in text)
        if self._fallback and (byte := re.fullmatch("<0x([0-9A-F]{2})>", text)):
            return bytes.fromhex(byte[1])
        return self._plain(text).encode()

    def _plain(self, text: str) -> str:
        return text.replace(SPACE, " ") if self._spaces else text


def _cut(added: Sequence[str], unwritable: str) -> re.Pattern[str]:
    """What splits a text: added tokens, the longer ones first, and runs of what has to be written in bytes.

    There may be thousands of added tokens. They are looked for only where one can begin.
    """
    bytewise = ESCAPED + unwritable
    begins = "".join(sorted({re.escape(text[0]) for text in added})) + bytewise
    return re.compile(f"(?=[{begins}])({'|'.join([*map(re.escape, added), f'[{bytewise}]+'])})")


def _writes_spaces(part: dict[str, Any]) -> bool:
    """Whether all that it changes is how spaces are written, and that a text begins with one."""
    match part:
        case {"type": "Replace", "pattern": {"String": " "}, "content": content}:
            return bool(content == SPACE)
        case {"type": "Prepend", "prepend": prepend}:
            return bool(prepend == SPACE)
        case {"type": "Metaspace", "replacement": replacement}:
            return bool(replacement == SPACE)
    return False


def _without_lead(words: Any) -> Any:
    """A pre-tokenizer that puts no space before a text, as a new object: parts of the other are shared."""
    state = _unled(json.loads(words.__getstate__()))
    made: Any = pre_tokenizers.Sequence([])
    made.__setstate__(json.dumps(state).encode())
    return made


def _unled(state: dict[str, Any]) -> dict[str, Any]:
    if state["type"] == "Sequence":
        return {**state, "pretokenizers": [_unled(part) for part in state["pretokenizers"]]}
    return {**state, **{key: value for key, value in UNLED.items() if key in state}}


UNLED = {"prepend_scheme": "never", "add_prefix_space": False}


def _letters() -> dict[int, str]:
    """The letter by which byte-level tokenizers write each byte (Radford et al., 2019): the printable ones of
    Latin-1 as they are, the others by letters behind it."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {**{byte: chr(byte) for byte in shown}, **{byte: chr(0x100 + n) for n, byte in enumerate(hidden)}}


LETTERS = _letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}
