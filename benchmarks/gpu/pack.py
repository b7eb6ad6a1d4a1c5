"""What `python -m benchmarks.gpu` needs on a machine that has PyTorch and transformers, and no network.

python -m benchmarks.gpu.pack FOLDER [--python 3.12] [--pieces 3]

Into FOLDER: wheels of Outrider, without its native kernels, and of packages that are seldom there; the
benchmarks; SmolLM2 in pieces, since not all may go through at once; and run.sh, which takes the options of
`benchmarks.gpu` and needs the pieces for SmolLM2's parts alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from outrider.models.checkpoint import locate

ROOT = Path(__file__).parents[2]
ALONE, WITH_OTHERS = ("gguf", "llguidance", "platformdirs"), ("pydantic",)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RUN = """\
set -e
cd "$(dirname "$0")"
[ -d site ] || python3 -m pip install --quiet --no-index --no-deps --target site wheels/*.whl
if [ ! -e smollm2.gguf ] && [ "$(ls | grep -c '^part\\.')" = {pieces} ]; then cat part.* > smollm2.gguf; fi
PYTHONPATH=site:. exec python3 -m benchmarks.gpu --model smollm2.gguf "$@"
"""


def pack(folder: Path, python: str, pieces: int) -> None:
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    bare = ["-C", "wheel.cmake=false", "-C", "wheel.py-api=py3"]
    run([*pip, "wheel", "--no-deps", *bare, "--wheel-dir", str(wheels), str(ROOT)])
    there = ["--only-binary=:all:", "--python-version", python, "--dest", str(wheels)]
    there += [word for platform in PLATFORMS for word in ("--platform", platform)]
    run([*pip, "download", "--no-deps", *there, *ALONE])
    run([*pip, "download", *there, *WITH_OTHERS])
    archive = subprocess.run(
        ["git", "archive", "HEAD", "benchmarks"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    model = locate("smollm2").read_bytes()
    size = -(-len(model) // pieces)
    for number in range(pieces):
        (folder / f"part.{number}").write_bytes(model[number * size : (number + 1) * size])
    (folder / "run.sh").write_text(RUN.format(pieces=pieces))


def run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the other machine's")
    parser.add_argument("--pieces", type=int, default=3)
    args = parser.parse_args()
    pack(args.folder, args.python, args.pieces)


if __name__ == "__main__":
    main()
