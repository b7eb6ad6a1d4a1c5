"""`outrider export-head`: a head for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.console import say, stdout
from outrider.cli.importing import importing
from outrider.errors import ConfigError


def export_head(
    head: Annotated[
        str, typer.Argument(metavar="HEAD", help="A head: a folder, a hub id, or 'head', SmolLM2's.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write it: a folder that is new or empty.")
    ],
) -> None:
    """Write a head as vLLM and SGLang read it.

    Matrices that are stored in 4 bits become float32, without rounding. LLM(engine="vllm") does so by itself.
    """
    with importing():
        from outrider.models.head_checkpoint import HeadCheckpoint, locate_head
        from outrider.models.head_export import export_head as write

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{str(out)!r} is not empty; name a folder that is new, or empty")
    write(HeadCheckpoint(locate_head(head)), out)
    say(stdout, f"{out}: a head that vLLM reads, with the method 'eagle3'")
