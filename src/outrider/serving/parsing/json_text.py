"""Where a JSON value ends, found while its text comes."""

from __future__ import annotations


class JsonText:
    """Follows the text of a string, an object or an array, character by character, up to its end.

    It counts brackets and skips strings; whether the value is JSON is left to whoever reads it.
    """

    def __init__(self) -> None:
        self.ended = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> int:
        """How many characters of this piece belong to the value."""
        for place, character in enumerate(text):
            if self.ended:
                return place
            self._read(character)
        return len(text)

    def _read(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = character == "\\"
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character in "[{":
            self._depth += 1
        elif character in "]}":
            self._depth -= 1
        self.ended = not (self._in_string or self._depth > 0)
