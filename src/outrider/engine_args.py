"""vLLM's `EngineArgs`: the arguments of an engine as a value, which a command line can fill."""

from __future__ import annotations

import json
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, get_args, get_type_hints

from outrider.options import Options
from outrider.vllm_arguments import OF_LLM

Parser = TypeVar("Parser", ArgumentParser, _ArgumentGroup)
MODEL = "smollm2"
"""What vLLM's scripts get that name no model."""
HINTS: Mapping[str, Any] = {**dict.fromkeys(OF_LLM, Any), **get_type_hints(Options)}
"""The options of LLM, vLLM's among them, and their types."""


class _Args:
    """Its fields are the model and the options of `LLM`; None leaves an option at its default."""

    @property
    def given(self) -> dict[str, Any]:
        """Arguments of `LLM`: the model, and the options that are not None."""
        named: tuple[Field[Any], ...] = fields(self)  # type: ignore[arg-type]
        values = {each.name: getattr(self, each.name) for each in named}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_cli_args(cls, args: Namespace) -> Self:
        """From what a parser with `add_cli_args` has read."""
        named: tuple[Field[Any], ...] = fields(cls)  # type: ignore[arg-type]
        return cls(**{each.name: getattr(args, each.name) for each in named if hasattr(args, each.name)})

    @staticmethod
    def add_cli_args(parser: Parser) -> Parser:
        """Give a parser an option for each field: `--max-model-len`, `--enforce-eager`, and so on."""
        parser.add_argument("--model", default=MODEL, help="a folder, a hub id, a GGUF file, or 'smollm2'")
        for name, hint in HINTS.items():
            parser.add_argument("--" + name.replace("_", "-"), dest=name, default=None, **_reading(hint))
        return parser

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.given.items())})"


def _reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type; LLM says what is wrong with it."""
    kinds = {*get_args(hint), hint}
    if bool in kinds:
        return {"action": BooleanOptionalAction}
    if any(getattr(kind, "__origin__", None) is not None and "Mapping" in str(kind) for kind in kinds):
        return {"type": json.loads, "metavar": "JSON"}
    return {"type": next((kind for kind in (int, float) if kind in kinds and str not in kinds), str)}


if TYPE_CHECKING:

    @dataclass
    class EngineArgs(_Args):
        """The model and the options of `LLM`."""

        def __init__(self, model: str = MODEL, **options: Unpack[Options]) -> None: ...

else:
    EngineArgs = make_dataclass(
        "EngineArgs",
        [("model", str, MODEL), *((name, hint, field(default=None)) for name, hint in HINTS.items())],
        bases=(_Args,),
        namespace={"__doc__": "The model and the options of `LLM`.", "__module__": __name__},
        repr=False,
    )
