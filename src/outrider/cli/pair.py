"""The target and the drafters that a command measures, and the engine that computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from outrider.cli.importing import importing
from outrider.cli.options import load, measured_drafters, options_of, settings_of
from outrider.cli.startup import starting
from outrider.errors import ConfigError
from outrider.measurement.bench import AFRESH, Length
from outrider.measurement.loads import Loads, at_all_lengths, one_by_one

if TYPE_CHECKING:
    from outrider.llm import LLM

OF_DRAFTS = ("speculative_model", "speculative_config", "prompt_lookup_min", "prompt_lookup_max")


class Pair(NamedTuple):
    """drafters: by name. promised: whether speculation is promised to change no token. serve: for an engine
    that serves by itself, the command with draft lengths by batch size."""

    drafters: list[str]
    loads: Loads
    promised: bool = True
    serve: Callable[[Mapping[int, int]], str] | None = None


def load_pair(
    engine: str,
    model: str,
    drafters: list[str] | None,
    length: str | None = "auto",
    *,
    workload: str | None = None,
    draft_quantization: str | None = None,
    settings: list[str] | None = None,
    memory_limit: str | None = None,
    afresh: bool = False,
    quiet: bool = False,
) -> Pair:
    """length: at which our engine drafts, where a request does not say. afresh: nothing is kept of earlier
    requests. The others are as in `outrider.cli.options.load`. Raises ConfigError for what the engine cannot
    do, before anything is loaded."""
    if engine == "outrider":
        llm = load(
            model,
            drafters,
            length,
            workload,
            draft_quantization,
            settings,
            memory_limit=memory_limit,
            quiet=quiet,
            **(AFRESH if afresh else {}),
        )
        return Pair(measured_drafters(llm), at_all_lengths(llm))
    if engine != "vllm":
        raise ConfigError(f"engine = {engine!r}: give 'outrider' or 'vllm'", "engine")
    options = options_of(drafters, None, workload, draft_quantization, settings)
    if memory_limit is not None:
        options["memory_limit"] = memory_limit
    if afresh:
        options = {"enable_prefix_caching": False, **options}
    return _on_vllm(model, options, settings_of(settings), quiet=quiet)


def _on_vllm(model: str, options: Mapping[str, Any], given: Mapping[str, Any], *, quiet: bool) -> Pair:
    """given: the options that are to be in the command that serves."""
    with importing():
        from outrider.cluster.vllm.arguments import RENAMED
        from outrider.cluster.vllm.config import resolve_vllm
        from outrider.cluster.vllm.schedule import schedule_of, serve_command
        from outrider.cluster.vllm.speculation import speculation_of
        from outrider.extras import VLLM
        from outrider.llm import LLM

    VLLM.require("--engine vllm")
    config = resolve_vllm(model, **_at_length(options, 1))
    drafting = speculation_of(config)
    assert drafting is not None  # a length without a drafter is refused

    def load_at(length: Length) -> LLM:
        with starting(quiet=quiet) as listener:
            return LLM(model, engine="vllm", listener=listener, **_at_length(options, length))

    def serve(best: Mapping[int, int]) -> str:
        # As they were resolved, and by vLLM's names: sizes are in bytes.
        named = {
            RENAMED.get(name, name): getattr(config, name, value)
            for name, value in given.items()
            if name not in OF_DRAFTS
        }
        return serve_command(model, named, drafting, schedule_of(best))

    return Pair(list(config.drafters), one_by_one(load_at), promised=False, serve=serve)


def _at_length(options: Mapping[str, Any], length: Length) -> dict[str, Any]:
    """The options with so many drafted tokens; with 0, without what drafts. None is for vLLM to refuse."""
    if length == 0:
        return {name: value for name, value in options.items() if name not in OF_DRAFTS}
    number = "auto" if length is None else length
    own = options.get("speculative_config")
    if own is None:
        return {**options, "num_speculative_tokens": number}
    return {**options, "speculative_config": {**own, "num_speculative_tokens": number}}
