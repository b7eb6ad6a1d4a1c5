"""`outrider plan`: what fits in memory, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli.columns import Column, in_mib, print_columns
from outrider.cli.console import print_json, say, say_command, stderr, stdout
from outrider.cli.importing import importing
from outrider.cli.options import (
    MODEL,
    DrafterOption,
    DraftQuantizationOption,
    EngineOption,
    JsonOption,
    LengthOption,
    PositionalModel,
    SameModelOption,
    SettingOption,
    VerboseOption,
    one_model,
    options_of,
    say_found,
)
from outrider.cli.plan_vllm import plan_on_vllm
from outrider.cli.startup import starting
from outrider.errors import ConfigError
from outrider.loading import Loading

if TYPE_CHECKING:
    from outrider.planning.choices import Choices, PlanChoice
    from outrider.planning.plan import MemoryPlan

NAME = "--memory"


def plan(
    name: PositionalModel = None,
    model: SameModelOption = None,
    memory: Annotated[
        str | None,
        typer.Option(
            NAME,
            metavar="SIZE",
            help="Memory to plan for, as in 512MiB or 2GB; else what is free here. With -s device=cuda that "
            "of a GPU, with --engine vllm that of each device; it need not be here if a size is given.",
        ),
    ] = None,
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    draft_quantization: DraftQuantizationOption = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Positions that a request has to have; default 512 at least.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Requests at a time; default as many as there is room for.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    engine: EngineOption = "outrider",
    bandwidth: Annotated[
        bool, typer.Option(help="Measure how fast this machine reads memory; takes seconds and 256 MiB.")
    ] = True,
    setting: SettingOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what fits in memory, before anything is loaded.

    From configurations and file headers alone, for each weight format and drafter: what it needs, what
    context and how many requests remain, and the tokens/s that memory bandwidth allows to plain decoding;
    drafts come on top. Below stand the commands for the best of them. Exit status 1 if nothing fits.

    With --engine vllm, for which vLLM need not be here: what each device takes of weights, by
    tensor_parallel_size and pipeline_parallel_size, and for how many positions and requests of K and V
    gpu_memory_utilization, kv_cache_memory or VLLM_CPU_KVCACHE_SPACE leave room.
    """
    chosen = one_model(name, model)
    size = None if memory is None else _bytes(memory)
    given = {"max_model_len": max_model_len, "max_num_seqs": max_num_seqs}
    asked = {name: value for name, value in given.items() if value is not None}
    drafters = (speculative_model, num_speculative_tokens, None, draft_quantization, setting)
    if engine != "outrider":
        with importing():
            from outrider.engines import load_of
        load_of(engine)  # refused where there is no such engine
        plan_on_vllm(chosen, options_of(*drafters, engine=engine) | asked, size, as_json=as_json)
        return
    with starting(quiet=as_json) as listener:
        with importing():
            from outrider.config import resolve
            from outrider.finding.auto import with_found
            from outrider.planning.bandwidth import read_bandwidths
            from outrider.planning.limit import advice, on_gpu, planned_limit, survey

        config = resolve(chosen, **options_of(*drafters) | asked)
        share = config.gpu_memory_utilization
        limit = planned_limit(config, size, name=NAME)
        bounded = {"memory_limit": limit.bytes, "gpu_memory_utilization": None}
        config = config.model_copy(update=bounded)
        config, drafts = with_found(config, listener=listener)
        listener(Loading(f"reading {chosen}"))
        found = survey(config, limit, also=drafts.without_room if drafts is not None else ())
        listener(Loading("measuring how fast memory is read"))
        measured = bandwidth and not on_gpu(config)
        speeds = read_bandwidths({choice.plan.read for choice in found.all}) if measured else {}
    if as_json:
        print_json(_as_json(chosen, limit.bytes, found, speeds))
    else:
        say_found(drafts)
        where = "that is free here" if memory is None else ""
        _print(chosen, f"{in_mib(limit.bytes)} MiB {where}".rstrip(), found, speeds, verbose=verbose)
        for line in _recommendations(found):
            say(stdout, line)
        if found.recommended is not None:
            within = {} if memory is None or share is not None else {"memory_limit": memory}
            kept = [f"{name}={value}" for name, value in (asked | within).items()]
            _print_commands(chosen, found.recommended, [*(setting or []), *kept], num_speculative_tokens)
    if found.recommended is None:
        say(stderr, advice(found, limit), "bold red")
        raise typer.Exit(1)


def _bytes(memory: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from outrider.option_types import Bytes

    try:
        size: int = TypeAdapter(Bytes).validate_python(memory)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{NAME} = {memory!r}: {reason[:1].lower()}{reason[1:]}") from None
    return size


def _print(model: str, size: str, found: Choices, speeds: Mapping[int, float], *, verbose: bool) -> None:
    """One row a format and drafter. size: the limit, in words; speeds: of memory, by bytes that are read."""
    from outrider.planning.allowed import mib
    from outrider.planning.limit import taker

    given = found.given.plan
    formats = [choice.format for choice in found.all]
    plans = [choice.plan for choice in found.all]
    keys = (
        Column("weights", ["" if n and formats[n - 1] == f else f for n, f in enumerate(formats)], "left"),
        Column("drafter", [choice.drafter for choice in found.all], "left"),
    )
    parts = (
        Column("target", [in_mib(plan.target) for plan in plans]),
        Column("draft", [in_mib(plan.drafts) for plan in plans]),
        Column("passes", [in_mib(plan.activations) for plan in plans]),
        Column("K/V", [in_mib(plan.caches.bytes_of_one(1000)) for plan in plans]),
        Column("in all", [str(plan.positions) if plan.fits else "-" for plan in plans]),
    )
    columns = (
        Column("needs", [in_mib(plan.least) for plan in plans]),
        Column("context", [str(plan.context) if plan.fits else "-" for plan in plans]),
        Column("requests", [str(plan.max_num_seqs) if plan.fits else "-" for plan in plans]),
        Column("tokens/s", [f"{rate:.0f}" if (rate := _rate(plan, speeds)) else "" for plan in plans]),
    )
    speed = "its speed was not measured"
    if speeds:
        speed = f"it is read at {speeds[given.read] / 1e9:.1f} GB/s"
    caption = (
        f"needs: MiB, with one request of {given.wanted} positions. What is left: context of a request, "
        f"requests at once. Tokens/s: at most, without drafts, by memory: {speed}."
    )
    if verbose:
        caption += " Target to passes: MiB of it; K/V: of 1000 positions; in all: positions of all requests."
    print_columns(
        stdout,
        keys,
        (*columns, *parts) if verbose else columns,
        title=f"{model} ({found.stored}) in {size}, {mib(given.runtime)} of it for "
        f"{taker(found.given.config)}",
        caption=caption,
        styles=[None if plan.fits else "dim" for plan in plans],
        ends=[n for n, f in enumerate(formats) if formats[n + 1 : n + 2] != [f]],
    )


def _rate(plan: MemoryPlan, speeds: Mapping[int, float]) -> float | None:
    """Tokens a second that memory allows to one request without drafts; None where it was not measured."""
    return speeds[plan.read] / plan.read if speeds else None


def _print_commands(model: str, choice: PlanChoice, settings: Sequence[str], length: str | None) -> None:
    """How to run the choice, and how to serve it."""
    options = dict(choice.options)
    drafters = options.pop("speculative_model", [])
    drafters = [drafters] if isinstance(drafters, str) else drafters
    words = [word for name in drafters for word in ("-d", name)]
    if drafters and length is not None:
        words += ["-k", length]
    others = [each for each in settings if each.partition("=")[0] not in ("dtype", "quantization")]
    chosen = [f"{name}={value}" for name, value in options.items()]
    words += [word for each in (*chosen, *others) for word in ("-s", each)]
    for what, name in (("to talk with it", "run"), ("to serve it", "serve")):
        say_command(f"{what + ':':<16}", ["outrider", name, model, *words])


def _recommendations(found: Choices) -> Iterator[str]:
    best, fastest = found.recommended, found.fastest
    if best is not None:
        yield f"recommended, since it loses least: {_described(best)}"
    if best is not None and fastest is not None and fastest.plan.read < best.plan.read:
        yield f"fastest that fits: {_described(fastest)}"


def _described(choice: PlanChoice) -> str:
    plan = choice.plan
    return (
        f"{choice.words}; context {plan.context}, requests at once {plan.max_num_seqs}, positions in all "
        f"{plan.positions}"
    )


def _as_json(model: str, limit: int, found: Choices, speeds: Mapping[int, float]) -> dict[str, Any]:
    best, fastest = found.recommended, found.fastest
    return {
        "model": model,
        "stored_as": found.stored,
        "memory_bytes": limit,
        "read_bandwidth_bytes_per_s": speeds.get(found.given.plan.read),
        "choices": [_choice_as_json(choice, speeds) for choice in found.all],
        "recommended": None if best is None else dict(best.options),
        "fastest": None if fastest is None else dict(fastest.options),
    }


def _choice_as_json(choice: PlanChoice, speeds: Mapping[int, float]) -> dict[str, Any]:
    plan = choice.plan
    return {
        "format": choice.format,
        "drafter": choice.drafter,
        "options": dict(choice.options),
        "fits": plan.fits,
        "bytes": {
            "runtime": plan.runtime,
            "target": plan.target,
            "draft": plan.drafts,
            "activations": plan.activations,
            "loading_peak": plan.loading,
            "cache_per_position": plan.block // plan.block_size,
            "needed": plan.least,
            "peak": plan.total,
        },
        "context": plan.context if plan.fits else 0,
        "positions": plan.positions if plan.fits else 0,
        "requests_at_once": plan.max_num_seqs if plan.fits else 0,
        "full_requests_at_once": plan.concurrency if plan.fits else 0,
        "tokens_per_s_at_most": _rate(plan, speeds),
    }
