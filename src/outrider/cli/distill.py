"""`outrider distill`: a draft trained on its target."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from outrider.cli.console import say, stderr, stdout
from outrider.cli.importing import INTERRUPTED, importing
from outrider.cli.options import SettingOption, settings_of
from outrider.errors import OutriderError
from outrider.extras import TORCH
from outrider.training.score import SAMPLED, Score


def distill(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Option("--target", "-m", metavar="MODEL", help="The target, as --model elsewhere.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the draft and its data.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Go on with what was begun there, and with its options: none but --device."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="head|student", help="An EAGLE-3 head, or a small model of its own.")
    ] = "head",
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the target answers: JSON lines with 'turns', or any text. Without it an "
            "instruction-tuned target writes the prompts itself.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="outrider|vllm",
            help="What computes the target while data is made: vLLM for one that is too large to run here.",
        ),
    ] = "outrider",
    setting: SettingOption = None,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of training data.")] = 1_000_000,
    data_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="Size of the data on disk, at most.")
    ] = "8GiB",
    start: Annotated[
        str | None, typer.Option(metavar="HEAD", help="A head to go on from: a folder, or 'head', SmolLM2's.")
    ] = None,
    draft_vocab_size: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="N", help="Tokens that a head can say; default: as --start, or 8192. Repeatable."
        ),
    ] = None,
    layers: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Layers of a head; default: as --start, or one. Repeatable: of all shapes that are named, "
            "that is kept with which the target decodes fastest here.",
        ),
    ] = None,
    state_layers: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            metavar="N",
            help="A layer of the target whose input a head reads. Repeatable; default: as --start, or a low, "
            "a middle and a late one.",
        ),
    ] = None,
    unrolled: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="N", help="Steps unrolled in a pass over the data. Repeatable; default 2, 3, 4."
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="The highest of the schedule.")] = 3e-3,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Save a head in 4 bits, for Outrider alone to read.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything that is random.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
) -> None:
    """Train a drafter for a target, on text that it generates.

    It can be stopped at any time: the same command goes on where it was, or --resume.
    """
    _check_named(context)
    TORCH.require("`outrider distill`")
    with importing():
        from outrider.training.distill import distill as make
        from outrider.training.settings import DistillConfig

    settings: dict[str, Any] = {
        "target": target,
        "out": out,
        "kind": kind,
        "prompts": prompts,
        "engine": engine,
        "engine_options": settings_of(setting),
        "tokens": tokens,
        "data_limit": data_limit,
        "start": start,
        "draft_vocab_size": tuple(draft_vocab_size or ()),
        "layers": tuple(layers or ()),
        "state_layers": tuple(state_layers or ()),
        "unrolled": tuple(unrolled or (2, 3, 4)),
        "learning_rate": learning_rate,
        "quantized": quantized,
        "seed": seed,
        "device": device,
    }
    config = DistillConfig(**settings) if resume is None else DistillConfig.begun(resume, device)
    try:
        with Bars() as bars:
            score = make(config, bars)
    except OSError as error:
        raise OutriderError(
            f"{error}; what was saved in {str(config.out)!r} stands, and the same command goes on from it"
        ) from error
    except KeyboardInterrupt:
        going_on = shlex.join(["outrider", "distill", "--resume", str(config.out), "--device", device])
        say(stderr, f"stopped; to go on from what was saved: {going_on}")
        raise typer.Exit(INTERRUPTED) from None
    say(stdout, f"{config.out}: {_told(score)}")


def _check_named(context: typer.Context) -> None:
    """Raises BadParameter for too little to begin with, and for too much to go on with."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name != "DEFAULT"
    ]
    if "--resume" in given:
        if others := [name for name in given if name not in ("--resume", "--device")]:
            raise typer.BadParameter(
                f"{', '.join(others)} and --resume: it goes on with the options that it was begun with; "
                "leave them out"
            )
    elif missing := [name for name in ("--target", "--out") if name not in given]:
        raise typer.BadParameter(f"{' and '.join(missing)} missing; give both, or --resume FOLDER to go on")


class Bars(Progress):
    """Progress with the time left, a bar for the data and one for the training."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=stderr,
            speed_estimate_period=600,
        )
        self._data = self.add_task("data", total=None, unit="tokens", note="", visible=False)
        self._training = self.add_task("training", total=None, unit="steps", note="", visible=False)

    def data(self, tokens: int, total: int) -> None:
        self.update(self._data, completed=tokens, total=max(tokens, total), visible=True)

    def trained(self, steps: int, total: int, loss: float) -> None:
        self.update(self._training, completed=steps, total=total, note=f"loss {loss:.2f}", visible=True)

    def scored(self, score: Score) -> None:
        say(self.console, _told(score))

    def measured(self, shape: str, tokens_per_s: float) -> None:
        say(self.console, f"{shape}: {tokens_per_s:.1f} tokens/s")


def _told(score: Score) -> str:
    greedy, sampled = score.greedy, score.sampled
    agreement = ", ".join(f"{share:.0%}" for share in greedy.by_position)
    return (
        f"acceptance length {greedy.length:.2f} greedy, {sampled.length:.2f} at temperature {SAMPLED}, at a "
        f"draft length of {len(greedy.by_position)}, on held-out sequences; positions agree {agreement}"
    )
