"""What the APIs besides OpenAI's chat have in common: each of their bodies becomes a ChatRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import Discriminator, ValidationError

from outrider.serving.bodies import Body
from outrider.serving.requests import ChatRequest


def by_type(kinds: str, known: str, default: str = "") -> Discriminator:
    """Tells alternatives apart by their `type`, so that an error is of the one that was meant.

    kinds: what they are called together; known: their types, for who sends another; default: the type of
    what has none.
    """

    def type_of(value: object) -> str:
        given = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return str(given)

    message = f"{kinds} of this type are not supported; they are {known}"
    return Discriminator(type_of, custom_error_type="unsupported_type", custom_error_message=message)


class Additions(Body):
    """Fields of chat that these APIs do not have themselves, and take under the same names. Their ranges are
    checked where they become a ChatRequest."""

    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    cache_salt: str | None = None
    num_speculative_tokens: int | None = None
    """Draft length of this request; 0 is plain decoding."""
    chat_template_kwargs: dict[str, Any] | None = None
    priority: int | None = None

    def additions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Additions.model_fields}


def as_chat(fields: Mapping[str, Any]) -> ChatRequest:
    """The request with these fields of /v1/chat/completions; those that are None are left out.

    Raises RequestValidationError, which names fields as chat does.
    """
    try:
        return ChatRequest.model_validate(
            {name: value for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        raise RequestValidationError(
            [{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors()]
        ) from None


def function_tool(name: str, description: str | None, parameters: Any, strict: bool | None) -> dict[str, Any]:
    """A tool as chat has it. Fields that are None are left out."""
    function = {"name": name, "description": description, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool as chat has it. arguments: JSON text."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
