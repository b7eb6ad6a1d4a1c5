"""Validated values, most of them frozen, whose errors are one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from outrider.errors import ConfigError
from outrider.foreign import Rule, translated
from outrider.messages import shown


class Strict(BaseModel):
    """A model that raises ConfigError: what is wrong, its value, and what would be right. Frozen, unless a
    class says otherwise.

    foreign: what becomes of vLLM's arguments that the class has no fields for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    foreign: ClassVar[Mapping[str, Rule]] = MappingProxyType({})

    def __init__(self, **values: Any) -> None:
        values = translated(values, self.foreign, type(self).__name__)
        names = (field.alias or name for name, field in type(self).model_fields.items())
        refuse_unknown(values, names, type(self).__name__)
        with _one_sentence():
            super().__init__(**values)


class Assignable(Strict):
    """One whose fields can be assigned to. Each value is validated by itself."""

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    if not TYPE_CHECKING:  # where a type checker would take any name at all for a field

        def __setattr__(self, name: str, value: Any) -> None:
            owner = type(self).__name__
            for own, meant in translated({name: value}, self.foreign, owner).items():
                refuse_unknown([own], type(self).model_fields, owner)
                with _one_sentence():
                    super().__setattr__(own, meant)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Tell what does not validate in one sentence each."""
    try:
        yield
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
