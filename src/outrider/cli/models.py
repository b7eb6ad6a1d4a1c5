"""`outrider models`: which models and weight formats run, and on what."""

from __future__ import annotations

from dataclasses import asdict

from outrider.cli.columns import Column, print_columns
from outrider.cli.console import print_json, say, stdout
from outrider.cli.options import JsonOption
from outrider.extras import TORCH
from outrider.models.catalogue import families, formats
from outrider.ops.cpu import extension


def models(as_json: JsonOption = False) -> None:
    """List the models and weight formats that run.

    Every family runs on the native CPU kernels and on PyTorch. Weights of every format are taken as they are
    in the file by the native kernels; PyTorch turns them into its own float type.
    """
    sets = extension.native.instruction_sets() if extension.native is not None else []
    if as_json:
        print_json(
            {
                "families": [asdict(row) for row in families()],
                "formats": [asdict(row) for row in formats()],
                "instruction_sets": sets,
            }
        )
        return
    kinds, stored = families(), formats()
    print_columns(
        stdout,
        [Column("family", [row.name for row in kinds], "left")],
        [
            Column("architecture", [row.architecture for row in kinds], "left"),
            Column("GGUF", [row.gguf for row in kinds], "left"),
        ],
        title="Models",
    )
    print_columns(
        stdout,
        [Column("format", [row.name for row in stored], "left")],
        [
            Column("bits", [f"{row.bits:g}" for row in stored]),
            Column("found in", [row.comes_from for row in stored], "left"),
        ],
        title="Weight formats",
    )
    native = f"the native kernels ({', '.join(sets)})" if sets else "no native kernels, which were not built"
    pytorch = "PyTorch" if TORCH.missing is None else "no PyTorch, which is not installed"
    say(stdout, f"Here: {native}, and {pytorch}.")
