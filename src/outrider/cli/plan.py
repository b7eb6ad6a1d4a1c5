"""`outrider plan`: what fits in memory, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from outrider.cli.columns import Column, print_columns
from outrider.cli.console import print_json, stderr, stdout
from outrider.cli.importing import importing
from outrider.cli.options import (
    DrafterOption,
    DraftQuantizationOption,
    JsonOption,
    LengthOption,
    ModelOption,
    SettingOption,
    options_of,
)
from outrider.config import Bytes, resolve
from outrider.errors import ConfigError
from outrider.planning.bandwidth import read_bandwidth

if TYPE_CHECKING:
    from outrider.planning.choices import Choices, PlanChoice

NAME = "--memory"


def plan(
    memory: Annotated[
        str, typer.Option(NAME, metavar="SIZE", help="Memory of the device, for example 512MiB or 2GB.")
    ],
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    num_speculative_tokens: LengthOption = None,
    draft_quantization: DraftQuantizationOption = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Positions that a request has to have; default 512 at least.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, help="Requests at a time; default as many as there is room for.")
    ] = None,
    bandwidth: Annotated[
        bool, typer.Option(help="Measure how fast this machine reads memory; takes a second and 256 MiB.")
    ] = True,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits in memory, from configurations and file headers alone: no weight is loaded.

    For each weight format and drafter: what weights, drafts and all together take, what context and how many
    requests remain, and the tokens/s that memory bandwidth allows to plain decoding; drafts come on top.
    Exit status 1 if nothing fits.
    """
    with importing():
        from outrider.planning.limit import advice, survey

    limit = _bytes(memory)
    options = options_of(speculative_model, num_speculative_tokens, None, draft_quantization, setting)
    given = {"max_model_len": max_model_len, "max_num_seqs": max_num_seqs}
    options |= {name: value for name, value in given.items() if value is not None}
    found = survey(resolve(model, **options), limit, name=NAME)
    speed = read_bandwidth() if bandwidth else None
    if as_json:
        print_json(_as_json(model, limit, found, speed))
    else:
        _print(model, limit, found, speed)
        for line in _recommendations(found):
            stdout.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.recommended is None:
        stderr.print(
            advice(found, name=NAME), style="bold red", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(1)


def _bytes(memory: str) -> int:
    try:
        size: int = TypeAdapter(Bytes).validate_python(memory)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{NAME} = {memory!r}: {reason[:1].lower()}{reason[1:]}") from None
    return size


def _print(model: str, limit: int, found: Choices, speed: float | None) -> None:
    """One row a format and drafter."""
    from outrider.planning.choices import mib

    given = found.given.plan
    measured = "its speed was not measured" if speed is None else f"it is read at {speed / 1e9:.1f} GB/s"
    size = f"{limit / 2**20:.0f} MiB, {mib(given.runtime)} of it for Python and libraries"
    formats = [choice.format for choice in found.all]
    plans = [choice.plan for choice in found.all]
    keys = (
        Column("weights", ["" if n and formats[n - 1] == f else f for n, f in enumerate(formats)], "left"),
        Column("drafter", [choice.drafter for choice in found.all], "left"),
    )
    columns = (
        Column("target", [_mib(plan.target) for plan in plans]),
        Column("draft", [_mib(plan.drafts) for plan in plans]),
        Column("passes", [_mib(plan.activations) for plan in plans]),
        Column("K/V", [_mib(plan.caches.bytes_of_one(1000)) for plan in plans]),
        Column("all", [_mib(plan.least) for plan in plans]),
        Column("context", [str(plan.context) if plan.fits else "-" for plan in plans]),
        Column("in all", [str(plan.positions) if plan.fits else "-" for plan in plans]),
        Column("requests", [str(plan.max_num_seqs) if plan.fits else "-" for plan in plans]),
        Column("tokens/s", ["" if speed is None else f"{speed / plan.read:.0f}" for plan in plans]),
    )
    print_columns(
        stdout,
        keys,
        columns,
        title=f"{model} ({found.stored}) in {size}",
        caption=f"MiB; K/V: of 1000 positions; all: with one request of {given.wanted} positions. What is "
        "left: context of a request, positions of all requests, requests at once. Tokens/s: at most, without "
        f"drafts, by memory: {measured}.",
        styles=[None if plan.fits else "dim" for plan in plans],
        ends=[n for n, f in enumerate(formats) if formats[n + 1 : n + 2] != [f]],
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


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


def _as_json(model: str, limit: int, found: Choices, speed: float | None) -> dict[str, Any]:
    best, fastest = found.recommended, found.fastest
    return {
        "model": model,
        "stored_as": found.stored,
        "memory_bytes": limit,
        "read_bandwidth_bytes_per_s": speed,
        "choices": [_choice_as_json(choice, speed) for choice in found.all],
        "recommended": None if best is None else dict(best.options),
        "fastest": None if fastest is None else dict(fastest.options),
    }


def _choice_as_json(choice: PlanChoice, speed: float | None) -> dict[str, Any]:
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
        "tokens_per_s_at_most": None if speed is None else speed / plan.read,
    }
