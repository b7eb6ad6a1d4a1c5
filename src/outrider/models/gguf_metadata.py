"""Values of a GGUF file's metadata, each of the type that its key asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.rope import is_number
from outrider.models.settings import is_whole


@dataclass(frozen=True)
class Metadata:
    """The values by key, and the name of the file for messages. read: the keys that were asked for.

    Each method raises ModelError, which names the key and its value, where the value is of another type, and
    where the key is missing and no default is given.
    """

    values: Mapping[str, Any]
    source: str
    read: set[str] = field(default_factory=set, compare=False)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def get(self, key: str) -> Any:
        """The value as it stands; None where there is none."""
        self.read.add(key)
        return self.values.get(key)

    def integer(self, key: str, default: int | None = None, *, below: int = 2**31) -> int:
        """A number of things, or an index: 0 <= value < below."""
        value: int = self._value(key, default, is_whole, "a whole number")
        if not 0 <= value < below:
            raise self.wrong(key, f"it has to be at least 0 and less than {below}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number greater than 0."""
        value = float(self._value(key, default, _is_number, "a number"))
        if not 0 < value < math.inf:
            raise self.wrong(key, "it has to be a finite number greater than 0")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value: bool = self._value(key, default, lambda value: isinstance(value, bool), "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._value(key, default, lambda value: isinstance(value, str), "a string")
        return value

    def strings(self, key: str) -> list[str]:
        """An empty list if the key is missing."""
        return self._list(key, {str}, "strings")

    def integers(self, key: str) -> list[int]:
        """An empty list if the key is missing."""
        return self._list(key, {int}, "whole numbers")

    def numbers(self, key: str) -> list[float]:
        """An empty list if the key is missing; no NaN."""
        numbers = self._list(key, {int, float}, "numbers")
        if any(map(math.isnan, numbers)):
            raise self.wrong(key, "it has to be an array of numbers")
        return numbers

    def wrong(self, key: str, rule: str) -> ModelError:
        """The error for a value that is there and cannot be used."""
        name = shown(key)[1:-1]  # a key may be the file's own: in one line, and shortened
        return ModelError(f"{self.source}: {name} = {shown(self.values.get(key))}; {rule}")

    def _list(self, key: str, types: set[type], kind: str) -> list[Any]:
        """Arrays have an element a token: that all are of one type is seen without a call for each."""

        def list_of_kind(value: Any) -> bool:
            return isinstance(value, list) and set(map(type, value)) <= types

        value: list[Any] = self._value(key, [], list_of_kind, f"an array of {kind}")
        return value

    def _value(self, key: str, default: Any, accepts: Callable[[Any], bool], kind: str) -> Any:
        value = self.get(key)
        if value is None:
            if default is None:
                raise ModelError(f"{self.source}: metadata {shown(key)} is missing")
            return default
        if not accepts(value):
            layers = " for all layers" if isinstance(value, list) and not kind.startswith("an array") else ""
            raise self.wrong(key, f"it has to be {kind}{layers}")
        return value


def _is_number(value: Any) -> bool:
    return is_number(value) and not math.isnan(value)
