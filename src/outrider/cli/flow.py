"""Text that streams to a terminal, broken between words at its edge."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from outrider.outputs import Increment

STYLES = {"draft": "bold green", "bonus": "cyan", "correction": "yellow", "target": ""}
LEGEND = Text.assemble(
    "accepted draft tokens are ",
    ("green", STYLES["draft"]),
    ", the target's bonus after a whole draft ",
    ("cyan", STYLES["bonus"]),
    ", its corrections ",
    ("yellow", STYLES["correction"]),
)

TAB = "        "
JOINER = "\N{ZERO WIDTH JOINER}"
STEERING = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"} | {
    ord("\t"): TAB
}
"""Characters that steer a terminal, which a model has no business with; a tab is spaces."""


class Flow:
    """Writes pieces of text as they come, but for a word that may go on: where it ends says on which line it
    has room.

    A wide character, as of Chinese, is a word by itself. A word that is wider than the terminal is broken.
    Where the console is no terminal, all is written as it is, at once.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0
        self._gap = Text()  # before the word; it is dropped where a line ends
        self._word = Text()

    def write(self, text: str, style: str = "") -> None:
        """Add a piece. style: as rich names it."""
        if not self._console.is_terminal:
            self._console.file.write(text)
            self._console.file.flush()
            return
        for character in text.translate(STEERING):
            if character == "\n":
                self._finish_word()
                self._new_line()
            elif character.isspace():
                self._finish_word()
                self._gap.append(character, style)
            else:
                if self._ends_before(character):
                    self._finish_word()
                self._word.append(character, style)

    def show(self, increment: Increment) -> None:
        """Add what a step added, each token in the colour of where it came from."""
        for piece in increment.pieces:
            self.write(piece.text, STYLES[piece.origin])

    def end(self) -> None:
        """Write the last word, and end the line."""
        self._finish_word()
        self.write("\n")

    def _ends_before(self, character: str) -> bool:
        """Whether a line may be broken between the word and the character."""
        word, width = self._word.plain, cell_len(character)
        return width > 0 and not word.endswith(JOINER) and (width > 1 or cell_len(word[:1]) > 1)

    def _finish_word(self) -> None:
        if not self._word:
            return
        room = self._console.width
        if self._column and self._column + self._gap.cell_len + self._word.cell_len > room:
            self._new_line()
        for part in (*self._characters(self._gap), *self._characters(self._word)):
            if self._column + part.cell_len > room:
                self._new_line()
            self._print(part)
            self._column += part.cell_len
        self._gap, self._word = Text(), Text()

    def _characters(self, text: Text) -> Sequence[Text]:
        """One by one where they are wider than the terminal, else together."""
        return [*text.divide(range(1, len(text)))] if text.cell_len > self._console.width else [text]

    def _new_line(self) -> None:
        self._print(Text("\n"))
        self._column, self._gap = 0, Text()

    def _print(self, text: Text) -> None:
        self._console.print(text, end="", soft_wrap=True)
