"""What all bodies of requests have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, model_validator
from pydantic_core import PydanticCustomError

from outrider.serving.fields import Unsupported, passed_over

UNSUPPORTED = "unsupported_field"
"""The kind of error of a field that is refused."""


def _without_extras_refused(schema: dict[str, Any]) -> None:
    """In the description: some other names are taken, see `outrider.serving.fields`."""
    schema.pop("additionalProperties", None)


class Body(BaseModel):
    """A request's body, or a part of one. Types are strict: a number in quotes is no number.

    A field that is not listed is passed over where it cannot change the answer, and else refused by name.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        json_schema_extra=_without_extras_refused,
    )
    place: ClassVar[str] = ""
    """What leads to it in a request, with a point behind it."""

    @model_validator(mode="before")
    @classmethod
    def _read_fields(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        read = [field.alias or name for name, field in cls.model_fields.items()]
        try:
            dropped = passed_over(given, read, cls.place)
        except Unsupported as error:
            raise PydanticCustomError(
                UNSUPPORTED, "{reason}", {"field": error.name, "reason": str(error)}
            ) from None
        return {name: value for name, value in given.items() if name not in dropped}


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
