"""From token ids to text, one token at a time, and the search for stop strings in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from outrider.models.tokenizer import Tokenizer
from outrider.outputs import Origin, Piece

PRIMING_TOKENS = 6  # of the prompt's end: what a tokenizer may look at to place a space
MOST_TOKENS = 8  # that are decoded at once, unless a character has more
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # how a decoder shows a UTF-8 character that lacks bytes


class Detokenizer:
    """Decodes a sequence incrementally; holds back tokens that end inside a UTF-8 character.

    Each call decodes the last few tokens and returns what is new of their text. They begin with a completed
    character (as in the method of Hugging Face's text-generation-inference), or with the end of the prompt,
    which is decoded along, so that a leading space survives.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._decode = partial(tokenizer.decode, skip_special_tokens=skip_special_tokens)
        self._tokens = list(prompt[-PRIMING_TOKENS:])
        self._done = len(self._tokens)  # the text of tokens before this one was returned
        self._text = self._decode(self._tokens)  # theirs

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        added = text[len(self._text) :]
        if not added or added.endswith(INCOMPLETE):
            return ""
        if len(self._tokens) > MOST_TOKENS:
            self._tokens = self._tokens[self._done :]  # the next begin with what `token` completed
            text = self._decode(self._tokens)
        self._text, self._done = text, len(self._tokens)
        return added

    def flush(self) -> str:
        """What is left: a character that was never completed."""
        before, self._text = self._text, self._decode(self._tokens)
        self._done = len(self._tokens)
        return self._text[len(before) :]


class OutputText:
    """The text of one sequence. Pieces are released once no stop string can reach back into them."""

    def __init__(self, detokenizer: Detokenizer, stop: Sequence[str], *, include_stop: bool) -> None:
        self.text = ""
        self._detokenizer = detokenizer
        self._stop = stop
        self._include_stop = include_stop
        self._hold = max((len(s) for s in stop), default=1) - 1
        self._held: list[Piece] = []
        self._released = 0  # characters

    def push(self, token: int, origin: Origin, *, silent: bool, stops: bool) -> str | None:
        """Add a token; returns the stop string that it completes, at which the text is then cut.

        silent: the token ends the output and adds no text; stops: stop strings count already.
        """
        added = "" if silent else self._detokenizer.push(token)
        before = len(self.text)
        self.text += added
        self._held.append(Piece(token, added, origin))
        if not (stops and added and self._stop):
            return None
        # Each string is looked for only where this token completes it, however long the others are.
        places = ((self.text.find(s, max(0, before - len(s) + 1)), s) for s in self._stop)
        found = [(at, s) for at, s in places if at >= 0]
        if not found:
            return None
        at, stop = min(found)
        self._cut(at + len(stop) if self._include_stop else at)
        return stop

    def finish(self) -> None:
        """Add what the last tokens left of an incomplete character."""
        rest = self._detokenizer.flush()
        if rest and self._held:
            self.text += rest
            last = self._held.pop()
            self._held.append(Piece(last.token_id, last.text + rest, last.origin))

    def release(self, *, finished: bool) -> tuple[Piece, ...]:
        """The pieces that may be shown now, each once; the last of them has text, unless it ends all."""
        limit = len(self.text) if finished else len(self.text) - self._hold
        count = 0
        for piece in self._held:
            if self._released + len(piece.text) > limit:
                break
            self._released += len(piece.text)
            count += 1
        while not finished and count and not self._held[count - 1].text:
            count -= 1
        pieces, self._held = tuple(self._held[:count]), self._held[count:]
        return pieces

    def _cut(self, length: int) -> None:
        """Shorten the text, and the held pieces with it."""
        self.text = self.text[:length]
        room = length - self._released
        for i, piece in enumerate(self._held):
            self._held[i] = Piece(piece.token_id, piece.text[:room], piece.origin)
            room -= len(self._held[i].text)
