"""The limits that SECURITY.md tells are those of the code, and of the command line."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from pydantic import BaseModel

from outrider.cli.serve import serve
from outrider.option_types import parse_bytes
from outrider.serving.settings import ServerConfig
from tests.docs.documents import tables

PLACE = re.compile(r"`(outrider(?:\.\w+)+)`")


def limits() -> list[tuple[str, str]]:
    """What is told of each limit that is told in the code, and where."""
    (table,) = tables("SECURITY.md")
    return [(row[1], place[1]) for row in table.rows[1:] if (place := PLACE.fullmatch(row[2]))]


def value_of(place: str) -> Any:
    """A constant, or the default of a field."""
    outer, _, name = place.rpartition(".")
    module, _, kind = outer.rpartition(".")
    if kind[0].isupper():
        owner: type = getattr(__import__(module, fromlist=[kind]), kind)
        return owner.model_fields[name].default if issubclass(owner, BaseModel) else getattr(owner, name)
    return getattr(__import__(outer, fromlist=[name]), name)


@pytest.mark.parametrize(("told", "place"), limits(), ids=lambda value: value.rpartition(".")[2])
def test_limits(told: str, place: str) -> None:
    number = told.removesuffix(" s")
    assert value_of(place) == (float(number) if number != told else parse_bytes(told))


def test_every_limit_of_time_and_size_is_told() -> None:
    told = {place.rpartition(".")[2] for _, place in limits()}
    fields = {name for name in ServerConfig.model_fields if name.startswith("max_") or "timeout" in name}
    assert fields - told == {"max_output_tokens"}  # there is none by default
    assert len(limits()) > 20


def test_the_command_has_the_same_defaults() -> None:
    for name, parameter in inspect.signature(serve).parameters.items():
        if name in ServerConfig.model_fields:
            default = ServerConfig.model_fields[name].default
            given = parameter.default
            assert (parse_bytes(given) if name == "max_body_size" else given) == default
