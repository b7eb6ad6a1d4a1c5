"""`outrider tune`: fixed draft lengths against the automatic one, on the user's pair and prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from outrider.cli.columns import Column, print_columns
from outrider.cli.console import print_json, say, stderr, stdout
from outrider.cli.importing import importing
from outrider.cli.options import (
    DRAFTS,
    MEASURING,
    BatchSizesOption,
    DrafterOption,
    DraftQuantizationOption,
    EngineOption,
    JsonOption,
    LimitOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    PromptsOption,
    RoundsOption,
    SettingOption,
    TemperatureOption,
    WorkloadOption,
)
from outrider.cli.pair import load_pair
from outrider.cli.report import conditions
from outrider.errors import ConfigError
from outrider.extras import PLOT
from outrider.measurement.bench import ALL, AUTO, Length, count_conversations, shown
from outrider.measurement.prompts import BUILT_IN, read_conversations
from outrider.measurement.tune import TARGET_ONLY, Sweep, by_category
from outrider.measurement.tune import tune as measure
from outrider.params import LONGEST_DRAFT

if TYPE_CHECKING:
    from outrider.llm import LLM


def tune(
    model: ModelOption = "smollm2",
    speculative_model: DrafterOption = None,
    lengths: Annotated[
        list[int] | None,
        typer.Option(
            "--length",
            "-k",
            min=0,
            max=LONGEST_DRAFT,
            metavar="N",
            help="Draft length. Repeatable; default 0 to --max-length.",
            rich_help_panel=DRAFTS,
        ),
    ] = None,
    max_length: Annotated[
        int,
        typer.Option(
            min=1,
            max=LONGEST_DRAFT,
            metavar="N",
            help="The longest draft, unless -k is given.",
            rich_help_panel=DRAFTS,
        ),
    ] = 8,
    engine: EngineOption = "outrider",
    workload: WorkloadOption = None,
    draft_quantization: DraftQuantizationOption = None,
    batch_sizes: BatchSizesOption = [1, 4, 16],  # noqa: B006  # which nobody changes
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 64,
    temperature: TemperatureOption = 0.0,
    rounds: RoundsOption = 2,
    picture: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Where the picture goes: a .png or .svg.", rich_help_panel=MEASURING
        ),
    ] = Path("tune.png"),
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the JSON goes.", rich_help_panel=MEASURING)
    ] = Path("tune.json"),
    memory_limit: MemoryOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the draft length that pays best.

    For each batch size, and what the automatic length reaches.

    One engine runs every draft length and the automatic one in random order within each round, so that a
    noisy machine slows all; ratios are within rounds. Nothing is kept of earlier requests. Batches stay
    within a category, whose prompts are repeated if they do not fill one. Exit status 1 if any output
    differs from that of the target alone.

    vLLM is loaded for each length, one after the other, and has no automatic one: the command that has it
    serve with the lengths found, by batch size, is printed. It promises no equal outputs: how many differ is
    told.
    """
    PLOT.require("the picture of `outrider tune`")
    with importing():
        from outrider.measurement.picture import check_format, draw

    check_format(picture)
    for path in (picture, output):
        if not path.parent.is_dir():
            raise ConfigError(f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}")
    conversations = BUILT_IN if prompts is None else read_conversations(prompts, limit=limit)
    batch_sizes = sorted({*batch_sizes})
    pair = load_pair(
        engine,
        model,
        speculative_model,
        workload=workload,
        draft_quantization=draft_quantization,
        settings=setting,
        memory_limit=memory_limit,
        afresh=True,
        quiet=as_json,
    )
    wanted: list[Length] = [*sorted({TARGET_ONLY, *(lengths or range(max_length + 1))})]
    if pair.promised:
        wanted.append(AUTO)
    heads = []

    def loads(lengths: Sequence[Length]) -> Iterator[tuple[LLM, Sequence[Length]]]:
        for llm, runs in pair.loads(lengths):
            head = conditions(
                llm, model, pair.drafters, max_tokens=max_tokens, rounds=rounds, prompts=prompts
            )
            heads.append(head)
            yield llm, runs

    with _progress(quiet=as_json) as progress:
        total = count_conversations(conversations, batch_sizes, rounds, len(wanted))
        task = progress.add_task("", total=total)
        sweeps = measure(
            loads,
            conversations,
            lengths=wanted,
            batch_sizes=batch_sizes,
            temperature=temperature,
            max_tokens=max_tokens,
            rounds=rounds,
            advance=lambda what, n: progress.update(task, advance=n, description=what),
        )
    report = heads[0] | {"results": [sweep.as_json() for sweep in sweeps]}
    if pair.serve is not None:
        best = {sweep.batch_size: sweep.best for sweep in sweeps if sweep.category == ALL}
        report["serve"] = pair.serve(best)
    if as_json:
        print_json(report)
    else:
        _print(sweeps)
        if "serve" in report:
            say(stdout, report["serve"])
    output.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    draw(sweeps, f"{model} with {', '.join(pair.drafters)}").savefig(picture)
    say(stderr, f"written: {picture}, {output}")
    different = sum(sweep.differences for sweep in sweeps if sweep.category == ALL)
    if different and pair.promised:
        say(
            stderr,
            f"{different} outputs differ from those of the target alone; `outrider verify` shows where",
            "bold red",
        )
        raise typer.Exit(1)


def _progress(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=quiet,
        speed_estimate_period=3600,  # over everything so far: long and short runs take turns
    )


def _print(sweeps: Sequence[Sweep]) -> None:
    """A table and a line a batch size."""
    categories = [sweep for group in by_category(sweeps).values() for sweep in group]
    totals = [sweep for sweep in sweeps if sweep.category == ALL]
    for total in totals:
        _print_batch(total, [sweep for sweep in categories if sweep.batch_size == total.batch_size])
    for total in totals:
        speed = total.tokens_per_s(total.best)
        said = f"batch {total.batch_size}: best fixed K = {total.best} ({speed:.1f} tokens/s)"
        if total.automatic:
            said += (
                f", auto {total.tokens_per_s(AUTO):.1f} ({total.ratio(AUTO, total.best):.2f}x of it, "
                f"{total.ratio(AUTO, TARGET_ONLY):.2f}x of target-only)"
            )
        say(stdout, said)
    compared = sum(total.comparisons for total in totals)
    identical = compared - sum(total.differences for total in totals)
    say(stdout, f"{identical}/{compared} identical", "bold")


def _print_batch(total: Sweep, sweeps: Sequence[Sweep]) -> None:
    """Tokens/s of one batch size: a row a category, a column a draft length, the best fixed one in green."""

    def speed(sweep: Sweep, length: Length) -> Text:
        best = length is not AUTO and length == sweep.best
        return Text(_speed(sweep.tokens_per_s(length)), style="bold green" if best else "")

    columns = [
        Column(
            str(shown(length)),
            [*(speed(sweep, length) for sweep in sweeps), f"{total.acceptance_length(length):.2f}"],
        )
        for length in total.lengths
    ]
    rows = Column("", [*(sweep.category for sweep in sweeps), "acceptance length"], "left")
    title = f"batch {total.batch_size}: tokens/s over draft length"
    print_columns(stdout, [rows], columns, title=title, ends={len(sweeps) - 1})


def _speed(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.1f}" if tokens_per_s < 100 else f"{tokens_per_s:.0f}"
