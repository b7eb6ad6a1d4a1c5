"""What a form of calls has to say of itself, and what a request asks of tools in whatever form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from outrider.serving.parsing.lark import Lark
    from outrider.serving.parsing.reader import Reader, Steps


@dataclass(frozen=True)
class Function:
    """parameters: the JSON schema of its arguments, None for none; strict: all of the schema is enforced."""

    name: str
    parameters: Mapping[str, Any] | None
    strict: bool


@dataclass(frozen=True)
class ToolUse:
    """functions: those that may be called; mode: whether they may or have to be; many: in one answer."""

    functions: tuple[Function, ...]
    mode: Literal["none", "auto", "required"]
    many: bool


class ToolFormat(ABC):
    """How models of a kind call tools.

    begins: the texts of which one begins the calls; anywhere: whether text may stand before them.
    """

    begins: tuple[str, ...] = ()
    anywhere = True
    tokens: tuple[str, ...] = ()
    """Marks of the form, which tokenizers often have as special tokens."""

    def marks(self, use: ToolUse) -> tuple[str, ...]:
        """What begins the calls of a request's tools."""
        return self.begins

    @abstractmethod
    def is_of(self, template: str) -> bool:
        """Whether a chat template has this form, as far as its source shows."""

    @abstractmethod
    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        """The grammar of what follows a mark: the rest of a call, and further ones."""

    @abstractmethod
    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        """Read calls, with the mark that begins them. Raises Malformed."""

    def for_template(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with calls or a result, as the templates of this form want it."""
        return message

    def read(self, reader: Reader, use: ToolUse) -> Steps[None]:
        """Read a whole answer: text, and calls wherever a mark begins some."""
        if not self.anywhere:
            yield from reader.attempt(self.calls(reader, use))
            return
        while (mark := (yield from reader.until(*self.marks(use)))) is not None:
            if not (yield from reader.attempt(self.calls(reader, use))):
                yield from reader.as_text(mark)
