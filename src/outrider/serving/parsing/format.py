"""What a request asks of tools, whatever the form in which a model calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


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
