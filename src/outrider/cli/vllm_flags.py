"""Options of `vllm serve`, by which `outrider serve` may be called unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from outrider.cli.options import Command
from outrider.errors import ConfigError

_NO_VALUE = """
    enforce-eager disable-log-requests enable-log-requests no-enable-log-requests disable-log-stats
    enable-chunked-prefill no-enable-chunked-prefill enable-auto-tool-choice trust-remote-code
    disable-uvicorn-access-log async-scheduling no-async-scheduling disable-custom-all-reduce
    disable-frontend-multiprocessing disable-fastapi-docs enable-prompt-tokens-details
    enable-server-load-tracking
"""
NO_VALUE = frozenset(_NO_VALUE.split())
"""Flags without a value that change no answer, or ask for what is so anyway."""
_WITH_VALUE = """
    gpu-memory-utilization swap-space cpu-offload-gb max-log-len uvicorn-log-level max-seq-len-to-capture
    compilation-config attention-backend download-dir
    max-parallel-loading-workers distributed-executor-backend api-server-count
"""
WITH_VALUE = frozenset(_WITH_VALUE.split())
"""The same with a value."""
NEUTRAL = {
    "tensor-parallel-size": "1",
    "pipeline-parallel-size": "1",
    "data-parallel-size": "1",
    "runner": "generate",
    "task": "generate",
    "load-format": "auto",
    "config-format": "auto",
    "tokenizer-mode": "auto",
    "response-role": "assistant",
    "chat-template-content-format": "auto",
    "guided-decoding-backend": "auto",
}
"""Options of which one value asks for nothing, and others for what is not there."""
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
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*kept, arg, *rest], ignored
        option, equals, value = arg.partition("=")
        option = SHORT.get(option, option)
        if option.startswith("--"):
            option = option.replace("_", "-")
        name = option.removeprefix("--")
        if not option.startswith("--") or option in own:
            kept.append(option + equals + value)
        elif name in NO_VALUE:
            ignored.append(option)
        elif name in WITH_VALUE or name in NEUTRAL:
            value = value if equals else _value(option, rest)
            if NEUTRAL.get(name, value) != value:
                raise ConfigError(f"{option} = {value} is not supported; only {NEUTRAL[name]} is, drop it")
            ignored.append(option)
        else:
            kept += _of_llm(option, equals, value, rest)
    return kept, ignored


def _of_llm(option: str, equals: str, value: str, rest: Iterator[str]) -> list[str]:
    """An option of LLM as `--set` takes it; another one as it stands."""
    from outrider.config import OPTIONS, EngineConfig

    name = option.removeprefix("--").replace("-", "_")
    field = EngineConfig.model_fields.get(name.removeprefix("no_"))
    if field is not None and field.annotation is bool and not equals:
        return ["--set", f"{name.removeprefix('no_')}={not name.startswith('no_')}"]
    if name not in OPTIONS:
        return [option + equals + value]
    return ["--set", f"{name}={value if equals else _value(option, rest)}"]


def _value(option: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise ConfigError(f"{option} needs a value")
    return value
