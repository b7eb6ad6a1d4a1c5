"""Arguments that vLLM has and Outrider has not: each means one of ours, changes no answer, or is refused."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from outrider.errors import ConfigError
from outrider.messages import shown


class Rule(Protocol):
    """What becomes of an argument."""

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        """The arguments of ours that it means. Raises ConfigError for a value that cannot be honoured."""


@dataclass(frozen=True)
class Renamed:
    """Another name for an argument of ours."""

    ours: str

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        return {self.ours: value}


@dataclass(frozen=True)
class Given:
    """It is an argument by this name."""

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        return {name: value}


@dataclass(frozen=True)
class Switch:
    """True means that an argument of ours has this value, and False asks for nothing."""

    ours: str
    value: Any

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise ConfigError(f"{owner}: {name} = {shown(value)}: give true or false", name)
        return {self.ours: self.value} if value else {}


@dataclass(frozen=True)
class Ignored:
    """It cannot change an answer, whatever its value."""

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Only:
    """Some values mean what is done anyway, and others are refused. right: what to do instead."""

    values: tuple[Any, ...]
    right: str

    def translate(self, owner: str, name: str, value: Any) -> dict[str, Any]:
        if value in self.values:
            return {}
        raise ConfigError(f"{owner} cannot do {name} = {shown(value)}: {self.right}", name)


def translated(given: Mapping[str, Any], rules: Mapping[str, Rule], owner: str) -> dict[str, Any]:
    """The arguments in our names, with one warning for those that have no effect. None asks for nothing.

    Raises ConfigError for what cannot be honoured, and for one thing that is given under two names.
    """
    ours = {name: value for name, value in given.items() if name not in rules}
    idle = []
    for name in (name for name in given if name in rules and given[name] is not None):
        meant = rules[name].translate(owner, name, given[name])
        for own, value in meant.items():
            if ours.get(own) is not None:
                raise ConfigError(f"{owner} is given {name} and {own}, which mean the same; drop one", name)
            ours[own] = value
        if not meant:
            idle.append(name)
    if idle:
        warnings.warn(
            f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect: {owner} takes vLLM's "
            "arguments that change no answer",
            stacklevel=_outside(),
        )
    return ours


def _outside() -> int:
    """The level of the first frame that is not the package's, for `warnings.warn` where this is called."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("outrider."):
        level, frame = level + 1, frame.f_back
    return level


def refuse_lora(request: object) -> None:
    """Raise ConfigError for a request with an adapter: without it, its answer would be another's."""
    if request is not None:
        raise ConfigError(
            f"lora_request = {shown(request)}: adapters are not loaded; merge it into the model's weights, "
            "and load those",
            "lora_request",
        )
