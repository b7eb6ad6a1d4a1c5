"""What has to be known of a JSON schema to write its values in another form than JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outrider.serving.parsing.format import Function
from outrider.serving.parsing.lark import Lark, object_schema

DEEPEST = 8
"""Objects in objects that are told apart; what lies deeper, or in itself, is any value."""


class ValueSchema:
    """A schema, with the definitions that it refers to."""

    def __init__(self, schema: Any, root: Mapping[str, Any], depth: int = 0) -> None:
        self.depth = depth
        self._root = root
        given = schema if isinstance(schema, Mapping) else {}
        for _ in range(DEEPEST):
            target = given.get("$ref")
            if not isinstance(target, str):
                break
            given = _found(root, target)
        self._given = given

    @classmethod
    def of(cls, function: Function) -> ValueSchema:
        """The schema of a tool's arguments."""
        schema = object_schema(function)
        return cls(schema, schema)

    @property
    def type(self) -> str | None:
        """What a value is, if it can be of one type alone, besides null."""
        named = self._given.get("type")
        kinds = [named] if isinstance(named, str) else list(named or ())
        kinds = kinds or [ValueSchema(each, self._root).type for each in self._alternatives]
        kinds = kinds or [_type_of(value) for value in self.values or ()]
        known = {kind for kind in kinds if kind != "null"}
        return known.pop() if len(known) == 1 else None

    @property
    def nullable(self) -> bool:
        named = self._given.get("type")
        if isinstance(named, Sequence) and "null" in named and not isinstance(named, str):
            return True
        return any(ValueSchema(each, self._root)._given.get("type") == "null" for each in self._alternatives)

    @property
    def values(self) -> list[Any] | None:
        """All that there are, if they are listed."""
        if "const" in self._given:
            return [self._given["const"]]
        listed = self._given.get("enum")
        return list(listed) if isinstance(listed, list) else None

    @property
    def items(self) -> ValueSchema:
        return ValueSchema(self._given.get("items"), self._root, self.depth + 1)

    @property
    def properties(self) -> dict[str, ValueSchema]:
        given = self._given.get("properties")
        named = given if isinstance(given, Mapping) else {}
        return {name: ValueSchema(schema, self._root, self.depth + 1) for name, schema in named.items()}

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self._given.get("required") or ())

    def text_through(self, lark: Lark, mark: str) -> str:
        """Text as it stands, of a length that fits, and the mark that ends it."""
        length = (self._given.get("minLength", 0), self._given.get("maxLength"))
        return lark.text_through(mark, length=length)

    def as_json(self, lark: Lark, *, lenient: bool) -> str:
        """The rule of the value as JSON."""
        definitions = {name: self._root[name] for name in ("$defs", "definitions") if name in self._root}
        return lark.json({**definitions, **self._given}, lenient=lenient)

    @property
    def _alternatives(self) -> list[Any]:
        return [each for word in ("anyOf", "oneOf") for each in self._given.get(word) or ()]


def in_order(
    lark: Lark,
    pairs: Mapping[str, str],
    required: frozenset[str],
    separator: str = "",
) -> str:
    """Some of these expressions in their order, all of the required ones, with a separator between them."""
    first = rest = ""
    for name, expression in reversed(list(pairs.items())):
        following = f"({rest})" if rest else ""
        led = (
            f"{lark.literal(separator)} {expression} {following}"
            if separator
            else f"{expression} {following}"
        )
        alone = f"{expression} {following}"
        if name in required:
            first, rest = lark.rule(alone), lark.rule(led)
        else:
            first = lark.rule(f"{alone} | {first}" if first else f"({alone})?")
            rest = lark.rule(f"{led} | {rest}" if rest else f"({led})?")
    return first


def _found(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """Where a reference within a schema leads; nothing where it leads elsewhere."""
    place: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else {}


def _type_of(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "array" if isinstance(value, list) else "object"
