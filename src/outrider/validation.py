"""Frozen, validated values whose errors are one sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from outrider.errors import ConfigError
from outrider.messages import shown


class Strict(BaseModel):
    """A frozen model that raises ConfigError: what is wrong, its value, and what would be right."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        names = (field.alias or name for name, field in type(self).model_fields.items())
        refuse_unknown(values, names, type(self).__name__)
        try:
            super().__init__(**values)
        except ValidationError as error:
            where = error.errors()[0]["loc"]
            field = str(where[0]) if where else None
            raise ConfigError("; ".join(_sentence(detail) for detail in error.errors()), field) from None


def refuse_unknown(names: Iterable[str], valid: Iterable[str], owner: str) -> None:
    """Raise ConfigError for the first of `names` that is not valid, naming the nearest that is."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            near = get_close_matches(str(name), valid, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(sorted(valid))}"
            raise ConfigError(f"{owner} has no argument {name!r}; {hint}")


def _sentence(detail: Any) -> str:
    if not detail["loc"]:
        return str(detail["msg"]).removeprefix("Value error, ")
    message = str(detail["msg"]).removeprefix("Value error, ")
    name = ".".join(str(part) for part in detail["loc"])
    return f"{name} = {shown(detail['input'])}: {message[:1].lower()}{message[1:]}"
