"""The commands: each is imported when it is asked for, and prints its options in groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from outrider.cli.importing import importing
from outrider.errors import ConfigError

MODULES = {
    "demo": "demo",
    "run": "chat",
    "chat": "chat",
    "generate": "generate",
    "serve": "serve",
    "models": "models",
    "plan": "plan",
    "drafts": "drafts",
    "bench": "bench",
    "tune": "tune",
    "verify": "verify",
    "distill": "distill",
    "export-head": "export_head",
}
"""Which module of this package has a command, in the order in which --help lists them."""

TYPE = re.compile(r"<(?:list\[)?(str|int|float|path)\b[^>]*>")
VALUES = {"str": "TEXT", "int": "N", "float": "N", "path": "PATH"}
"""What stands for a value in --help, by the type that the library prints."""


class Command(TyperCommand):
    """A command that prints its options in the groups that they name, their `rich_help_panel`, and says how
    to give an option of LLM that it has none of its own for."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = f"{parameter.param_type_name.capitalize()}s"
                group = groups.setdefault(getattr(parameter, "rich_help_panel", None) or usual, [])
                group.append((TYPE.sub(lambda found: VALUES[found[1]], record[0]), record[1]))
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.params for option in parameter.opts}
        given = (arg.partition("=")[0] for arg in takewhile(lambda arg: arg != "--", args))
        foreign = [option for option in given if option.startswith("--") and option not in own]
        if foreign and "--set" in own:
            from outrider.config import OPTIONS

            for option in foreign:
                name = option.removeprefix("--").replace("-", "_")
                if name in OPTIONS:
                    raise ConfigError(
                        f"`outrider {self.name}` has no option {option}; give it as -s {name}=VALUE"
                    )
        return super().parse_args(ctx, args)


class Commands(TyperGroup):
    """All of them. None is imported before it is asked for, so that the first line is there soon."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes | {"commands": _Imported()})


class _Imported(Mapping[str, Any]):
    """By name, the command that its module has, of the class that the module names, if it does."""

    def __getitem__(self, name: str) -> Any:
        with importing():
            module = import_module(f"outrider.cli.{MODULES[name]}")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=getattr(module, "command_class", Command))(
            getattr(module, name.replace("-", "_"))
        )
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)
