"""The README's table: SmolLM2 and a larger model, plain and with speculation, beside llama.cpp, in one run.

python -m benchmarks.front_table FILE [--name NAME] [--drafters ngram,D] [--tokens N] [--rounds N]
python -m benchmarks.front_table

FILE: the second model, a GGUF file. The run is written to benchmarks/results/front.json and rendered into
both READMEs; without FILE the run that is there is rendered again. What is timed is told in benchmarks/peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from benchmarks.marks import placed
from benchmarks.peers.base import PROMPT
from benchmarks.peers.measure import OF_SMOLLM2, Measured, Plan, Result, measure
from benchmarks.peers.prompts import long_prompt, token_ids
from benchmarks.peers.registry import OWN
from outrider.machine.cores import default_threads
from outrider.measurement.prompts import BUILT_IN
from outrider.models.checkpoint import locate

ROOT = Path(__file__).parents[1]
RUN = ROOT / "benchmarks" / "results" / "front.json"
PEER = "llama.cpp"
QUIET = 0.1  # cores that something else may keep busy while engines are measured
MARKS = "front"


@dataclass(frozen=True)
class Entry:
    """A model's row. Rates are tokens a second, medians over rounds; ratios are medians within rounds.

    identical: prompts, of all, on which speculation gave the tokens of plain decoding. peer: the other
    engine's rate, plain or with its own speculation, whichever is faster; over_peer: Outrider's with
    speculation over that.
    """

    model: str
    drafters: tuple[str, ...]
    plain: float
    speculative: float
    speedup: float
    identical: int
    prompts: int
    foreign_load: float
    bandwidth_gb_per_s: float
    peer: float | None
    over_peer: float | None


@dataclass(frozen=True)
class Run:
    """One run on one machine. versions: of what was measured; revision: of the repository."""

    date: str
    cpu: str
    cores: int
    threads: int
    revision: str
    versions: Mapping[str, str]
    tokens: int
    rounds: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Language:
    """A README and its words. peer_headings: of the columns that are left out without the other engine."""

    readme: str
    headings: tuple[str, ...]
    peer_headings: tuple[str, ...]
    drafters: Mapping[str, str]
    comma: str
    draft_model: str
    caption: str
    with_peer: str
    without_peer: str


LANGUAGES = (
    Language(
        "README.md",
        ("model and its drafters", "alone", "with speculation", "speed-up", "same tokens"),
        ("llama.cpp", "Outrider over llama.cpp"),
        {"ngram": "n-grams", "head": "an EAGLE-3 head"},
        ", ",
        "a smaller model",
        "Tokens per second, one greedy request. {cpu}, {cores} cores, {threads} threads; one run on {date} "
        "of `python -m benchmarks.front_table FILE`: five prompts (code, JSON, rewriting, a summary, open "
        "text), {tokens} tokens each, medians of {rounds} rounds.",
        " llama.cpp's figure is the better of plain decoding and its own prompt lookup.",
        " llama.cpp is not installed on that machine.",
    ),
    Language(
        "README.zh-TW.md",
        ("模型與草稿來源", "單獨執行", "推測解碼", "加速比", "token 相同"),
        ("llama.cpp", "Outrider 與 llama.cpp 之比"),
        {"ngram": "n-gram", "head": "EAGLE-3 頭"},
        "、",
        "較小的模型",
        "每秒 token 數，單一請求，貪婪解碼。{cpu}，{cores} 個核心，{threads} 個執行緒；{date} 執行一次 "
        "`python -m benchmarks.front_table FILE`：五個提示（程式碼、JSON、改寫、摘要、開放式文字），"
        "各 {tokens} 個 token，取 {rounds} 回合的中位數。",
        "llama.cpp 的數字取一般解碼與其內建的提示查找（prompt lookup）中較快者。",
        "該機器沒有安裝 llama.cpp。",
    ),
)


def entry(model: str, drafters: Sequence[str], measured: Measured) -> Entry:
    """The row of a model that was measured."""
    found = {(result.engine, result.speculate): result for result in measured.results}
    plain, speculative = found[OWN, False], found[OWN, True]
    peers = [result for result in measured.results if result.engine == PEER]
    best = max(peers, key=lambda result: median(result.decode), default=None)
    return Entry(
        model=model,
        drafters=tuple(drafters),
        plain=median(plain.decode),
        speculative=median(speculative.decode),
        speedup=_ratio(speculative, plain),
        identical=sum(a == b for a, b in zip(speculative.outputs, plain.outputs, strict=True)),
        prompts=len(plain.outputs),
        foreign_load=measured.foreign_load,
        bandwidth_gb_per_s=measured.bandwidth / 1e9,
        peer=median(best.decode) if best else None,
        over_peer=_ratio(speculative, best) if best else None,
    )


def _ratio(ours: Result, theirs: Result) -> float:
    return median(a / b for a, b in zip(ours.decode, theirs.decode, strict=True))


def render(run: Run, language: Language) -> str:
    """The table and its caption, as they stand in the README of that language."""
    compared = all(row.peer is not None for row in run.entries)
    headings = language.headings + (language.peer_headings if compared else ())
    lines = [headings, ("---", *["---:"] * (len(headings) - 1))]
    for row in run.entries:
        drafters = language.comma.join(language.drafters.get(d, language.draft_model) for d in row.drafters)
        rates = (f"{row.plain:.0f}", f"{row.speculative:.0f}", f"**{row.speedup:.2f}**")
        peer = (f"{row.peer:.0f}", f"**{row.over_peer:.2f}**") if compared else ()
        lines.append((f"{row.model}: {drafters}", *rates, f"{row.identical}/{row.prompts}", *peer))
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    caption = language.caption.format_map(asdict(run))
    return f"{table}\n{caption}{language.with_peer if compared else language.without_peer}\n"


def read_run() -> Run:
    return TypeAdapter(Run).validate_json(RUN.read_text(encoding="utf-8"))


def write_readmes(run: Run) -> None:
    for language in LANGUAGES:
        path = ROOT / language.readme
        text = placed(path.read_text(encoding="utf-8"), render(run, language), MARKS)
        path.write_text(text, encoding="utf-8")


def cpu_name() -> str:
    """The processor's name as Linux has it, and the widest instructions that the kernels know."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    known = (("amx_tile", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))
    widest = next((f" ({label})" for flag, label in known if flag in text), "")
    return f"{name[1].strip() if name else platform.machine()}{widest}"


def revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def run_of(models: Sequence[tuple[str, Path, Sequence[str]]], tokens: int, rounds: int) -> Run:
    """Measures every model, with its name and its drafters."""
    entries, versions = [], {"python": platform.python_version(), "numpy": version("numpy")}
    for name, path, drafters in models:
        prompts = token_ids(str(path), BUILT_IN)
        plan = Plan(prompts, long_prompt(str(path), PROMPT), tokens, rounds, default_threads())
        measured = measure(path, drafters, [OWN, PEER], plan)
        entries.append(entry(name, drafters, measured))
        versions |= {result.engine: result.about for result in measured.results}
        for skipped in measured.skipped:
            sys.stderr.write(f"{name}: no {skipped.engine}: {skipped.reason}\n")
        sys.stderr.write(f"{json.dumps(asdict(entries[-1]))}\n")
        if measured.foreign_load > QUIET:
            sys.stderr.write(f"{measured.foreign_load:.2f} cores were busy with something else: run again\n")
    date = datetime.now(UTC).date().isoformat()
    return Run(
        date=date,
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=default_threads(),
        revision=revision(),
        versions=versions,
        tokens=tokens,
        rounds=rounds,
        entries=tuple(entries),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--name", help="of its model in the table; default: the file's")
    parser.add_argument("--drafters", default="ngram", help="of the second model")
    parser.add_argument("--tokens", type=int, default=96, help="tokens to generate for a prompt")
    parser.add_argument("--rounds", type=int, default=2, help="after one to warm up")
    args = parser.parse_args()
    if args.file is not None:
        models = [
            ("SmolLM2-135M Q4_1", locate("smollm2"), OF_SMOLLM2),
            (args.name or args.file.stem, args.file, args.drafters.split(",")),
        ]
        run = run_of(models, args.tokens, args.rounds)
        RUN.parent.mkdir(exist_ok=True)
        RUN.write_text(json.dumps(asdict(run), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_readmes(read_run())


if __name__ == "__main__":
    main()
