"""Options of `vllm serve`, by which `outrider serve` may be called unchanged."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from outrider.cli.commands import Command
from outrider.cli.options import json_or_text
from outrider.errors import ConfigError
from outrider.foreign import Given, Ignored, Only, Rule
from outrider.vllm_arguments import OF_LLM

_FLAGS = """
    enforce-eager disable-log-requests enable-log-requests no-enable-log-requests disable-log-stats
    enable-chunked-prefill no-enable-chunked-prefill enable-auto-tool-choice trust-remote-code
    disable-uvicorn-access-log async-scheduling no-async-scheduling disable-custom-all-reduce
    disable-frontend-multiprocessing disable-fastapi-docs enable-prompt-tokens-details
    enable-server-load-tracking enable-lora enable-expert-parallel enable-sleep-mode
"""
FLAGS = frozenset(_FLAGS.split())
"""Options without a value. Any other one has none either where another option follows."""
SERVER: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "enable_auto_tool_choice", "disable_uvicorn_access_log", "disable_frontend_multiprocessing",
                "disable_fastapi_docs", "enable_server_load_tracking", "max_log_len", "uvicorn_log_level",
                "attention_backend", "api_server_count",
            ),
            Ignored(),
        ),
        "response_role": Only(("assistant",), "answers are the assistant's"),
        "chat_template_content_format": Only(("auto", "string"), "templates are given text"),
    }
)  # fmt: skip
"""What becomes of options that are the server's alone; the others are in `outrider.vllm_arguments`."""
RULES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {"outrider": {**OF_LLM, **SERVER}, "vllm": {**dict.fromkeys(OF_LLM, Given()), **SERVER}}
)
"""By engine."""
SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-q": "--quantization"}


class ServeCommand(Command):
    """`outrider serve`, which also knows the options of `vllm serve`, and those of LLM by their own names.

    Those that cannot change an answer are taken with one warning. Any other one that there is not is refused.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.params for option in (*parameter.opts, *parameter.secondary_opts)}
        kept, ignored = read(args, own)
        if ignored:
            sys.stderr.write(f"{', '.join(ignored)}: not needed here, and without effect\n")
        return super().parse_args(ctx, kept)


def read(args: Sequence[str], own: set[str]) -> tuple[list[str], list[str]]:
    """The arguments as `outrider serve` has them, and the options that are without effect.

    own: the command's options. Raises ConfigError for a value that asks for what is not there.
    """
    kept: list[str] = []
    ignored: list[str] = []
    rules = RULES.get(_engine(args), {})
    rest = deque(args)
    while rest:
        arg = rest.popleft()
        if arg == "--":
            return [*kept, arg, *rest], ignored
        option, equals, value = arg.partition("=")
        option = SHORT.get(option, option)
        if option.startswith("--"):
            option = option.replace("_", "-")
        name = option.removeprefix("--")
        if not option.startswith("--") or option in own:
            kept.append(option + equals + value)
        elif (argument := name.removeprefix("no-").replace("-", "_")) in rules:
            given: Any = not name.startswith("no-")
            if equals or not (name in FLAGS or not rest or rest[0].startswith("--")):
                given = json_or_text(value if equals else rest.popleft())
            meant = rules[argument].translate("outrider serve", argument, given)
            kept += [word for ours, value in meant.items() for word in ("--set", f"{ours}={_written(value)}")]
            ignored += [] if meant else [option]
        else:
            kept += _of_llm(option, equals, value, rest)
    return kept, ignored


def _of_llm(option: str, equals: str, value: str, rest: deque[str]) -> list[str]:
    """An option of LLM as `--set` takes it; another one as it stands."""
    from outrider.config import OPTIONS, EngineConfig

    name = option.removeprefix("--").replace("-", "_")
    field = EngineConfig.model_fields.get(name.removeprefix("no_"))
    if field is not None and field.annotation is bool and not equals:
        return ["--set", f"{name.removeprefix('no_')}={not name.startswith('no_')}"]
    if name not in OPTIONS:
        return [option + equals + value]
    return ["--set", f"{name}={value if equals else _value(option, rest)}"]


def _engine(args: Sequence[str]) -> str:
    """The engine that the arguments name; an unknown one is refused elsewhere."""
    for arg, following in pairwise([*args, ""]):
        option, equals, value = arg.partition("=")
        if option == "--engine":
            return value if equals else following
    return "outrider"


def _written(value: Any) -> str:
    """A value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _value(option: str, rest: deque[str]) -> str:
    if not rest:
        raise ConfigError(f"{option} needs a value")
    return rest.popleft()
