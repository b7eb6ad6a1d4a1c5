"""Text between two vocabularies: what a target has said, in a draft model's tokens, and back.

As in string-level verification (Timor et al., 2025, "Lossless speculative decoding for heterogeneous
vocabularies", section 3), draft and target have nothing in common but text. Here only the tokens around the
place where they meet are spelt anew, and the draft model's cache keeps all before.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from outrider.drafting.language import knows
from outrider.errors import ModelError
from outrider.models.spelling import Piece, Spelling, unspeakable
from outrider.models.tokenizer import Tokenizer

UNSETTLED = 32
"""Tokens that may be spelt anew when text follows, where no word begins among them."""
LOOKED_AT = 256
"""Bytes of a text by which its language is told, or a few more."""


@dataclass(frozen=True)
class Speaker:
    """A model as far as its text goes. rows: of its embedding table; ends: tokens that end its texts."""

    model: str
    tokenizer: Tokenizer
    rows: int
    ends: Sequence[int]


@dataclass(frozen=True)
class Seam:
    """Where a draft begins. tail: the text before it that is not settled; opening: the tail begins the text
    after a special token, or all of it; first: all of it."""

    tail: bytes
    opening: bool
    first: bool


@dataclass(frozen=True)
class Spelt:
    """A draft in the target's tokens.

    settled: how many of them stay whatever is drafted next. begun: of each token, how many drafted tokens
    begin before its end. closed: the draft has ended, with a special token.
    """

    tokens: tuple[int, ...] = ()
    settled: int = 0
    begun: tuple[int, ...] = ()
    closed: bool = False

    def shared(self, chances: Sequence[float]) -> tuple[float, ...]:
        """The chance of each token, from those of the drafted tokens: of all that begin in it. What goes on
        with a drafted token that has begun before is as sure as that."""
        return tuple(prod(chances[a:b]) for a, b in pairwise((0, *self.begun))) if chances else ()


class Translation:
    """How a draft model reads what the target says, and how the target would say what it drafts.

    A special token means one of the other model that is written alike, or that ends a text as it does.
    Others are read as their text, and end a draft.
    """

    def __init__(self, target: Speaker, draft: Speaker) -> None:
        """Raises ModelError for tokenizers of which one changes the text that it is given."""
        for speaker in (target, draft):
            if (why := unspeakable(speaker.tokenizer)) is not None:
                raise ModelError(
                    f"draft model {draft.model!r} cannot draft text for target {target.model!r}: the "
                    f"tokenizer of {speaker.model!r} does not keep a text as it is: {why}; choose a draft "
                    "with the target's tokenizer"
                )
        self.target = Spelling(target.tokenizer, target.rows)
        self.draft = Spelling(draft.tokenizer, draft.rows)
        self.read = _counterparts(self.target, target, self.draft, draft)
        """The draft model's token for a special one of the target."""
        self.said = _counterparts(self.draft, draft, self.target, target)
        """The target's token for a special one of the draft model."""
        self.ends = frozenset(draft.ends)
        self._special = frozenset(self.draft.special.values())
        self._target_special = frozenset(self.target.special.values())

    def is_known(self, tokens: Sequence[int]) -> bool:
        """Whether the draft model knows the language of what the target has said last: between two special
        tokens, since a chat is made of messages, if there are words at all."""
        text, special = b"", self._target_special
        for token in reversed(tokens):
            if token in special or len(text) >= LOOKED_AT:
                if (known := knows(self.draft, text.decode("utf-8", "ignore"))) is not None:
                    return known
                text = b""
            if token not in special:
                text = self.target.bytes_of(token) + text
        return knows(self.draft, text.decode("utf-8", "ignore")) is not False

    def spell(self, seam: Seam, drafted: Sequence[int]) -> Spelt:
        """What was drafted behind the seam, as the target would go on with it."""
        words = drafted[: next((n for n, token in enumerate(drafted) if token in self._special), None)]
        closed = len(words) < len(drafted)
        text, starts = b"", list[int]()
        for token in words:
            starts.append(len(text))
            text += self.draft.bytes_of(token)
        if seam.opening and not seam.tail and self.draft.opens(first=seam.first) and text.startswith(b" "):
            text, starts = text[1:], [max(0, start - 1) for start in starts]
        pieces = self._behind(seam, text)
        tokens = [token for token, _ in pieces]
        begun = [bisect_left(starts, end) for _, end in pieces]
        settled = len(pieces) if closed else _settled(seam.tail, text, pieces, starts)
        if closed and (said := self.said.get(drafted[len(words)])) is not None:
            tokens.append(said)
            begun.append(len(words) + 1)
            settled += 1
        return Spelt(tuple(tokens), settled, tuple(begun), closed)

    def _behind(self, seam: Seam, text: bytes) -> list[Piece]:
        """The target's tokens behind the seam. It has its tokens before it already: where it would write one
        across, the text goes on by itself."""
        opening = seam.opening and self.target.opens(first=seam.first)
        length = len(seam.tail)
        pieces = self.target.pieces(seam.tail + text, opening=opening)
        if length and all(end != length for _, end in pieces):
            return self.target.pieces(text)
        return [(token, end - length) for token, end in pieces if end > length]


@dataclass
class Transcript:
    """A request's text in a draft model's tokens, which grows.

    tokens: the draft model's, of all that was read; read: how many of the target's; settled: how many of
    `tokens` stay, whatever follows.
    """

    translation: Translation
    tokens: list[int] = field(default_factory=list, init=False)
    read: int = field(default=0, init=False)
    settled: int = field(default=0, init=False)
    _tail: bytes = field(default=b"", init=False)
    _opening: bool = field(default=True, init=False)
    _first: bool = field(default=True, init=False)
    # No token of the target's has come since the last special one.
    _fresh: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        begins = self.translation.draft.begins
        if begins is not None:
            self.tokens, self.settled = [begins], 1

    @property
    def seam(self) -> Seam:
        """The end of the text."""
        return Seam(self._tail, self._opening, self._first)

    def add(self, tokens: Iterable[int]) -> None:
        """Read what the target has said."""
        target = self.translation.target
        text = b""
        for token in tokens:
            known = self.translation.read.get(token)
            if self.read == 0 and token == target.begins:
                pass  # each has what its own texts begin with
            elif known is not None:
                self._append(text)
                text = b""
                self._mark(known)
            else:
                said = target.bytes_of(token)
                if self._fresh and target.opens(first=self._first):
                    said = said.removeprefix(b" ")
                text += said
                self._fresh = False
            self.read += 1
        self._append(text)

    def _mark(self, token: int) -> None:
        """A special token, with which all before it is settled."""
        self.tokens.append(token)
        self.settled = len(self.tokens)
        self._tail, self._opening, self._first, self._fresh = b"", True, False, True

    def _append(self, text: bytes) -> None:
        """More text. What is not settled is spelt anew with it."""
        if not text:
            return
        draft = self.translation.draft
        self._tail += text
        pieces = draft.pieces(self._tail, opening=self._opening and draft.opens(first=self._first))
        self.tokens[self.settled :] = [token for token, _ in pieces]
        count, end = _beginning(self._tail, pieces)
        if count:
            self.settled += count
            self._tail, self._opening = self._tail[end:], False


def _counterparts(ours: Spelling, our: Speaker, theirs: Spelling, their: Speaker) -> Mapping[int, int]:
    """Their token for each special one of ours that has one."""
    ends = [i for i in (their.tokenizer.eos_token_id, *their.ends) if i is not None and i < theirs.size]
    by_role = dict.fromkeys(our.ends, ends[0]) if ends else {}
    by_text = {i: theirs.special[text] for text, i in ours.special.items() if text in theirs.special}
    return by_role | by_text


def _beginning(text: bytes, pieces: Sequence[Piece]) -> tuple[int, int]:
    """How many tokens stay whatever follows the text, and where they end.

    What is before the last word does: every tokenizer splits a text before a space that follows a word, or
    almost. Where there are no spaces, as in Chinese, it is enough that the end is some tokens away.
    """
    for count in range(len(pieces) - 1, 0, -1):
        end = pieces[count - 1][1]
        after = text[end : end + 1]
        if after == b" " and not text[end - 1 : end].isspace():
            return count, end
        if len(pieces) - count >= UNSETTLED and after and after[0] & 0xC0 != 0x80:
            return count, end
    return 0, 0


def _settled(tail: bytes, text: bytes, pieces: Sequence[Piece], starts: Sequence[int]) -> int:
    """How many of a draft's tokens stay, whatever is drafted next.

    The last one may become a longer one with what follows. It is taken for whole where it is no more than the
    last token that was drafted: both vocabularies have made one of these letters. What touches a character
    that lacks bytes may become one with it.
    """
    whole = codecs.utf_8_decode(tail + text, "ignore", False)[1] - len(tail)
    if whole < len(text):
        return sum(end < whole for _, end in pieces)
    if not pieces:
        return 0
    begins = pieces[-2][1] if len(pieces) > 1 else 0
    return len(pieces) - (begins < starts[-1])
