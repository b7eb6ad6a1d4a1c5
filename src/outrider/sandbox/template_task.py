"""What workers do that lay out conversations: run a chat template, in transformers' environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def begin(template: str) -> Callable[[Any], str | list[str]]:
    """What renders `template`. A job has its `variables`, and the `limit` of characters of the text. Without
    variables the answer is the names of those that the template reads."""
    compiled: list[Template] = []

    def answer(job: Any) -> str | list[str]:
        try:
            if job["variables"] is None:
                return sorted(meta.find_undeclared_variables(_environment().parse(template)))
            if not compiled:
                compiled.append(_environment().from_string(template))
            return _rendered(compiled[0], job["variables"], job["limit"])
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} of it cannot be read: {error.message}") from None
        except TemplateError as error:
            raise ValueError(error.message or type(error).__name__) from None
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    return answer


def _rendered(template: Template, variables: dict[str, Any], limit: int) -> str:
    pieces, length = [], 0
    for piece in template.generate(**variables):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            raise TemplateError(f"it writes more than {limit} characters for this conversation")
    return "".join(pieces)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says, for training. Its text is as it stands."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        return str(caller())


class _Dict:
    """Of Python's class of that name what makes one, and none of its methods."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Without names that begin with an underscore, which lead to Python's inside. `self` is a fair one."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _check(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


def _check(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the attribute {name!r}")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
