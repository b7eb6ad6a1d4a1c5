"""What the kernels in Triton do on a GPU, within minutes, the most worth knowing first.

python -m benchmarks.gpu [--minutes 6] [--json FILE] [--parts A,B] [--model FILE] [--drafter HEAD]
python -m benchmarks.gpu --render

It stops by itself, and FILE is written with each finding, so that a run that is cut off leaves what it found.
A part that fails is noted, with its error, and the next goes on. What FILE has of the same card and versions
is not measured again, unless --parts names it. --render writes the table of docs/performance.md from FILE.
With TRITON_INTERPRET=1 in the environment it runs at toy size on the CPU, which proves the script and
measures nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Timer

from benchmarks.gpu.report import read
from benchmarks.gpu.table import render
from benchmarks.marks import placed

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "results" / "gpu.json"
PAGE, MARKS = ROOT / "docs" / "performance.md", "gpu"
SPARE = 5.0  # seconds of the minutes, to end in
CUT = 3  # exit status of a run that had to be ended


def main(arguments: Sequence[str] | None = None) -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument(
        "--json", type=Path, default=RUN, metavar="FILE", help=f"default {RUN.relative_to(ROOT)}"
    )
    parser.add_argument("--parts", default="", help="names, with commas between them")
    parser.add_argument("--model", default="smollm2", help="what `outrider generate --model` takes")
    parser.add_argument("--drafter", default="head", help="of the model")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args(arguments)
    if args.render:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(placed(text, render(read(args.json)), MARKS), encoding="utf-8")
        return
    end = Timer(60 * args.minutes, os._exit, [CUT])  # a compiler may be in the middle of something
    end.daemon = True
    end.start()
    from benchmarks.gpu.measuring import measure  # takes seconds, which are among the minutes

    def restart(names: Sequence[str], seconds: float) -> None:
        """Go on in place of this process."""
        rest = ["--minutes", str((seconds + SPARE) / 60), "--parts", ",".join(names)]
        rest += ["--json", str(args.json), "--model", args.model, "--drafter", args.drafter]
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *rest])

    left = 60 * args.minutes - SPARE - (time.monotonic() - began)
    names = args.parts.split(",") if args.parts else ()
    try:
        measure(args.json, left, args.model, args.drafter, names, restart=restart)
    finally:
        end.cancel()


if __name__ == "__main__":
    main()
