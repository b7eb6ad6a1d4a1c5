"""What all bodies of requests have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag


class Body(BaseModel):
    """A request's body. Types are strict: a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _whole(text: str) -> str:
    """JSON can hold half of a surrogate pair; UTF-8, and so a tokenizer, cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half of a surrogate pair; give the whole") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]

# Which of two alternatives was meant is seen from the value, so that an error is of that one alone.
AS_TEXT, AS_OTHER = "(text)", "(other)"
NO_FIELDS = frozenset({AS_TEXT, AS_OTHER, "[key]"})
"""What pydantic puts among the fields that lead to an error, and a client has no use for."""


def _alternative(value: object) -> str:
    return AS_OTHER if isinstance(value, list | dict) else AS_TEXT


AsText = Annotated[Text, Tag(AS_TEXT)]
BY_KIND = Discriminator(_alternative)
Schema = Annotated[AsText | Annotated[dict[str, Any], Tag(AS_OTHER)], BY_KIND]
"""A JSON schema, as text or as it is."""
