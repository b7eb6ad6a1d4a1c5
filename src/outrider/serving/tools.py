"""The tools that a client offers, which of them are to be called, and calls that it sends back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from outrider.errors import ConfigError
from outrider.serving.bodies import Body, Text
from outrider.serving.parsing.format import Function, ToolUse

MOST_TOOLS = 512
ToolName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema and schema.get("type", "object") != "object":
        raise ValueError("the schema of a tool's arguments has the type 'object'")
    return schema


class FunctionBody(Body):
    """parameters: a JSON schema; strict: whether all of the schema has to be one that can be enforced."""

    name: ToolName
    description: Text | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_object)] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: FunctionBody

    def for_template(self) -> dict[str, Any]:
        """As chat templates know it; `strict` is for the server alone."""
        function = self.function.model_dump(exclude={"strict"}, exclude_none=True)
        return {
            "type": "function",
            "function": {"parameters": {"type": "object", "properties": {}}} | function,
        }


class NamedFunction(Body):
    name: Text


class NamedChoice(Body):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice
Tools = Annotated[list[Tool], Field(max_length=MOST_TOOLS)]


def tool_use(
    tools: Sequence[Tool] | None, choice: ToolChoice | None, parallel: bool | None
) -> ToolUse | None:
    """What a request asks for; None where it offers no tools. Raises ConfigError for a choice without any."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise ConfigError(
                "tool_choice needs tools to choose from; give tools, or leave it out", "tool_choice"
            )
        return None
    functions = [Function(t.function.name, t.function.parameters, bool(t.function.strict)) for t in tools]
    names = [function.name for function in functions]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise ConfigError(f"tools has {twice!r} more than once; give each tool a name of its own", "tools")
    many = parallel is not False
    if not isinstance(choice, NamedChoice):
        return ToolUse(tuple(functions), choice or "auto", many)
    named = tuple(function for function in functions if function.name == choice.function.name)
    if not named:
        known = ", ".join(names)
        raise ConfigError(
            f"tool_choice names {choice.function.name!r}, which is not among the tools; they are {known}",
            "tool_choice",
        )
    return ToolUse(named, "required", False)


class SentFunction(Body):
    """arguments: a JSON text, as it was in the answer; empty where there are none."""

    name: Text
    arguments: Text

    def parsed(self, where: str) -> Any:
        """Raises ConfigError for what is not JSON: a template lays out the values."""
        try:
            return json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            raise ConfigError(
                f"{where}.function.arguments is not JSON; send calls back whole", "messages"
            ) from None


class SentCall(Body):
    """A call of an answer that is sent back. index: what a streamed answer has in it."""

    id: Text
    type: Literal["function"] = "function"
    function: SentFunction
    index: int | None = None

    def for_template(self, where: str) -> dict[str, Any]:
        function = {"name": self.function.name, "arguments": self.function.parsed(where)}
        return {"id": self.id, "type": "function", "function": function}
