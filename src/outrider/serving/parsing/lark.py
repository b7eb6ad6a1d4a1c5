"""Grammars in Lark's form, as llguidance reads it, put together rule by rule."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from pydantic import PrivateAttr

from outrider.params import StructuredOutputs
from outrider.sampling.grammar import source_of
from outrider.serving.parsing.format import Function

AS_TEMPLATES_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as chat templates write it, and so as models have seen it in training."""
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
META = re.compile(r"[\\.+*?()|\[\]{}^$/]")
"""Characters that mean something in a regular expression of Lark's."""
ANY = r"/(?s:.*)/"
Length = tuple[int, int | None]
ANY_LENGTH: Length = (0, None)


class AnswerGrammar(StructuredOutputs):
    """A grammar that was made of other fields of a request, which messages name."""

    _made_of: str = PrivateAttr("")

    @classmethod
    def of(cls, text: str, name: str) -> Self:
        grammar = cls(grammar=text)
        grammar._made_of = name
        return grammar

    @property
    def name(self) -> str:
        return self._made_of


class Lark:
    """Rules that refer to each other by name.

    added: ids of the tokens that a tokenizer finds in a text as a whole, which is how a model writes the
    marks of its format; no other text of a grammar can be made of them.
    """

    def __init__(self, added: Mapping[str, int]) -> None:
        self._added = added
        self._marks = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")
        self._rules: dict[str, str] = {}

    def grammar(self, start: str) -> str:
        """The whole grammar, which begins with the expression `start`."""
        return "\n".join([f"start: {start}", *(f"{name}: {body}" for body, name in self._rules.items())])

    def rule(self, body: str) -> str:
        """The name of a rule; the same body is one rule."""
        return self._rules.setdefault(body, f"r{len(self._rules)}")

    def terminal(self, body: str) -> str:
        """The name of a terminal, whose body is a regular expression, or several with & and ~."""
        return self._rules.setdefault(body, f"T{len(self._rules)}")

    def literal(self, text: str) -> str:
        """The very text, in which marks are tokens."""
        parts: list[str] = []
        at = 0
        for found in self._marks.finditer(text):
            parts += [_quoted(text[at : found.start()]), f"<[{self._added[found[0]]}]>"]
            at = found.end()
        return " ".join(part for part in [*parts, _quoted(text[at:])] if part)

    def one_of(self, expressions: Iterable[str]) -> str:
        return self.rule(" | ".join(f"({expression})" for expression in expressions))

    def text(self, *, without: Sequence[str] = (), not_first: Sequence[str] = ()) -> str:
        """Any text, also none. without: what must not be in it; not_first: nor at its beginning."""
        return self.terminal(_conditions(without, not_first) or ANY)

    def text_through(
        self,
        mark: str,
        *,
        without: Sequence[str] = (),
        not_first: Sequence[str] = (),
        length: Length = ANY_LENGTH,
    ) -> str:
        """Text up to and with a mark, which it has once. without, not_first: as for `text`; length: of the
        text in characters, the least and the most.

        A lexer does not go back, so that what may be the beginning of a mark cannot be a text of its own.
        """
        least, most = length
        counted = "*" if length == ANY_LENGTH else f"{{{least},{'' if most is None else most}}}"
        marks = (mark, *(other for other in without if other != mark))
        if mark in self._added:
            inside = [_conditions(marks, not_first), "" if counted == "*" else f"/(?s:.{counted})/"]
            text = self.terminal(" & ".join(filter(None, inside)))
            return f"{text}{'' if least else '?'} {self.literal(mark)}"
        through = rf"/(?s:.{counted}){_escaped(mark)}/"
        once = rf"~/(?s:.*){_choice(marks)}(?s:.+)/"
        return self.terminal(" & ".join(filter(None, [through, once, _conditions(marks[1:], not_first)])))

    def json(self, schema: Mapping[str, Any], *, lenient: bool = False) -> str:
        """JSON that fits a schema. lenient: keywords that cannot be enforced are left out."""
        written = dict(schema) | {"x-guidance": AS_TEMPLATES_WRITE | {"lenient": lenient}}
        return self.rule(f"%json {json.dumps(written)}")

    def arguments(self, function: Function) -> str:
        """A JSON object with a tool's arguments."""
        return self.json(object_schema(function), lenient=not function.strict)

    def answer(self, wanted: StructuredOutputs) -> str | None:
        """Text that has to fit; None where it cannot be a part of a grammar."""
        kind, text = source_of(wanted)
        if kind == "json_schema":
            return self.rule(f"%json {' '.join(text.splitlines())}")
        if kind == "choice":
            return self.one_of(json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
        if kind == "regex":
            return self.terminal("/" + re.sub(r"(\\.)|/", lambda m: m[1] or r"\/", text, flags=re.S) + "/")
        return None


def object_schema(function: Function) -> dict[str, Any]:
    """The schema of a tool's arguments, which has no others than those that it names."""
    schema = dict(function.parameters or NO_ARGUMENTS)
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return {"type": "object"} | schema


def _conditions(without: Sequence[str], not_first: Sequence[str]) -> str:
    conditions = [ANY] if without or not_first else []  # what is no text at all would fit the others
    conditions += [rf"~/(?s:.*){_choice(without)}(?s:.*)/"] if without else []
    conditions += [rf"~/[ \t\r\n]*{_choice(not_first)}(?s:.*)/"] if not_first else []
    return " & ".join(conditions)


def _choice(texts: Sequence[str]) -> str:
    return "(" + "|".join(map(_escaped, texts)) + ")"


def _escaped(text: str) -> str:
    return META.sub(r"\\\g<0>", text).replace("\n", r"\n")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
