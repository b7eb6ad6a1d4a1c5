"""`outrider distill`: a draft trained on its target."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from outrider.cli.console import say, stderr, stdout
from outrider.cli.importing import INTERRUPTED, importing
from outrider.errors import OutriderError
from outrider.extras import TORCH
from outrider.training.score import Score


def distill(
    target: Annotated[
        str, typer.Option("--target", "-m", metavar="MODEL", help="The target, as --model elsewhere.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the draft and its data.")
    ],
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
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of training data.")] = 1_000_000,
    data_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="Size of the data on disk, at most.")
    ] = "8GiB",
    start: Annotated[
        str | None, typer.Option(metavar="HEAD", help="A head to go on from: a folder, or 'head', SmolLM2's.")
    ] = None,
    draft_vocab_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens that a head can say; default: as --start, or 8192."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Layers of a head; default: as --start, or one.")
    ] = None,
    unrolled: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="N", help="Steps unrolled in a pass over the data. Repeatable; default 1, 1, 2, 3."
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="The highest of the schedule.")] = 8e-4,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="Save a head in 4 bits, for Outrider alone to read.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything that is random.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
) -> None:
    """Train a drafter for a target, on text that it generates.

    It can be stopped at any time: the same command goes on where it was.
    """
    TORCH.require("`outrider distill`")
    with importing():
        from outrider.training.distill import DistillConfig
        from outrider.training.distill import distill as make

    settings: dict[str, Any] = {
        "target": target,
        "out": out,
        "kind": kind,
        "prompts": prompts,
        "tokens": tokens,
        "data_limit": data_limit,
        "start": start,
        "draft_vocab_size": draft_vocab_size,
        "layers": layers,
        "unrolled": tuple(unrolled or (1, 1, 2, 3)),
        "learning_rate": learning_rate,
        "quantized": quantized,
        "seed": seed,
        "device": device,
    }
    try:
        with Bars() as bars:
            score = make(DistillConfig(**settings), bars)
    except OSError as error:
        raise OutriderError(
            f"{error}; what was saved in {str(out)!r} stands, and the same command goes on from it"
        ) from error
    except KeyboardInterrupt:
        say(stderr, f"stopped; to go on from what was saved: {shlex.join(['outrider', *sys.argv[1:]])}")
        raise typer.Exit(INTERRUPTED) from None
    say(stdout, f"{out}: {_told(score)}")


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


def _told(score: Score) -> str:
    agreement = ", ".join(f"{share:.0%}" for share in score.agreement)
    return (
        f"acceptance length {score.length:.2f} at a draft length of {len(score.agreement)}, on held-out "
        f"sequences; positions agree {agreement}"
    )
