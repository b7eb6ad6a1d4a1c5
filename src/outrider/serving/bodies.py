"""What all bodies of requests have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


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
