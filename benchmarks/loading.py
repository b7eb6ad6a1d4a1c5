"""How long a model takes to be ready, and what memory that takes, in fresh processes.

python -m benchmarks.loading --model FILE [--json] [--rounds 3] [--threads N]

Three loads in each round: the first, with an empty cache directory; again, which may use what the first has
kept there; and cold, the same with none of the files in the system's page cache, as after a start of the
machine (which systems other than Linux cannot be asked for). Each generates a token, for which all weights
are read. Peak memory is VmHWM, and what remains VmRSS, which only Linux has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.process import status

KINDS = ("first", "again", "cold")


@dataclass(frozen=True)
class Loaded:
    """Seconds of importing Outrider, of loading (`LLM(...)`), and of a first token after that; bytes of the
    process after all that and at its peak, and of the packed weights."""

    importing: float
    loading: float
    token: float
    peak: int
    final: int
    packed: int


def child(model: str, threads: int | None) -> Loaded:
    """In a process that has not imported Outrider."""
    began = time.perf_counter()
    from outrider import LLM, SamplingParams

    imported = time.perf_counter()
    llm = LLM(model, num_threads=threads, max_model_len=512)
    loaded = time.perf_counter()
    llm.generate([1] * 4, SamplingParams(max_tokens=1, temperature=0, ignore_eos=True), use_tqdm=False)
    said = time.perf_counter()
    peak, final = status("VmHWM"), status("VmRSS")
    from benchmarks.stored import packed_bytes

    return Loaded(imported - began, loaded - imported, said - loaded, peak, final, packed_bytes(llm))


def load(model: str, threads: int | None, kept: Path) -> Loaded:
    """In a fresh process with `kept` for its cache directory. Raises RuntimeError, with what it said."""
    command = [sys.executable, "-m", "benchmarks.loading", "--model", model, "--child"]
    command += [] if threads is None else ["--threads", str(threads)]
    environment = os.environ | {"XDG_CACHE_HOME": str(kept)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise RuntimeError(f"{model} could not be loaded: {run.stderr}")
    return Loaded(**json.loads(run.stdout.splitlines()[-1]))


def measure(model: str, path: Path, threads: int | None, rounds: int) -> dict[str, list[Loaded]]:
    """By kind of load. path: the model's file or folder."""
    found: dict[str, list[Loaded]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder)
            for kind in KINDS:
                if kind == "cold":
                    forget([path, kept])
                found[kind].append(load(model, threads, kept))
    return found


def forget(paths: Sequence[Path]) -> None:
    """Take files, and those in folders, out of the page cache, as far as the system lets us."""
    for path in paths:
        for file in filter(Path.is_file, [path, *path.rglob("*")]):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # pages that are not written yet stay
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class Row:
    """bar: the most that the value may be; None where there is none."""

    measure: str
    value: float
    bar: float | None = None


def rows(found: dict[str, list[Loaded]], tensor_bytes: int) -> Iterator[Row]:
    """Times are medians over rounds, the rest the worst of all loads."""
    everything = [each for loads in found.values() for each in loads]
    yield Row("importing, s", median(each.importing for each in everything))
    for kind, bar in (("first", 3.0), ("again", 1.0), ("cold", None)):
        yield Row(f"loading, {kind}, s", median(each.loading for each in found[kind]), bar)
        yield Row(f"first token, {kind}, s", median(each.token for each in found[kind]))
    worst = max(everything, key=lambda each: each.peak / each.final)
    yield Row("peak memory, MiB", worst.peak / 2**20)
    yield Row("final memory, MiB", worst.final / 2**20)
    yield Row("peak over final", worst.peak / worst.final, 1.1)
    yield Row("weights in memory, MiB", everything[0].packed / 2**20)
    yield Row("tensors in the file, MiB", tensor_bytes / 2**20)
    yield Row("weights over tensors", everything[0].packed / tensor_bytes, 1.02)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="as `outrider generate` takes it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: one a core")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        sys.stdout.write(json.dumps(asdict(child(args.model, args.threads))) + "\n")
        return
    from benchmarks.stored import stored_bytes
    from outrider.models.checkpoint import locate

    path = locate(args.model)
    found = measure(args.model, path, args.threads, args.rounds)
    table = list(rows(found, stored_bytes(path).total))
    if args.json:
        loads = {kind: [asdict(each) for each in loads] for kind, loads in found.items()}
        json.dump({"rows": [asdict(row) for row in table], "loads": loads}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for row in table:
        verdict = ""
        if row.bar is not None:
            verdict = f"at most {row.bar:g}: " + ("met" if row.value <= row.bar else "missed")
        sys.stdout.write(f"{row.measure:26} {row.value:9.3f}  {verdict}".rstrip() + "\n")


if __name__ == "__main__":
    main()
