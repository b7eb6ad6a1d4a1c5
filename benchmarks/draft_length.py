"""Automatic draft length against every fixed one, with a drafter of any acceptance rate and cost.

python -m benchmarks.draft_length [--full] [--formats int8,bf16] [--acceptance 0,0.4,0.8,0.95]
                                  [--batch 1,4,16] [--cost 0.02,0.3] [--changing] [--seconds 1]
                                  [--rounds 4] [--json FILE] [--picture FILE] [--cache DIR]

For each cell of the grid: tokens a second of fixed lengths 0 to 8 and of auto, in random order within each
round, while the whole batch decodes. After the first round only the best three, 0 and auto go on. Medians
over the rounds, of auto's rate over each length's in the same round. Auto has one run to learn in, not
timed. Every token is compared with the target's own. --changing: acceptance that jumps between 0.9 and 0.1
every 64 tokens, in step and out of step, and batches that mix both kinds of request.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

from benchmarks.decoding import FORMATS, Bench, in_format, questions
from benchmarks.synthetic import Acceptance, always
from benchmarks.variants import cache_folder
from outrider.drafting.chain import Chain
from outrider.drafting.length import FixedLength, LengthPolicy
from outrider.engine.request import Request

LENGTHS = range(9)
GO_ON = 3  # fixed lengths, after the first round
TOKENS = 500
FULL = {"acceptance": "0,0.2,0.4,0.6,0.8,0.95", "batch": "1,2,4,8,16,32", "cost": "0.02,0.1,0.3"}


@dataclass(frozen=True)
class Cell:
    """rates: tokens a second by length; over_best, over_plain: auto's, over the others' in the same round."""

    format: str
    acceptance: str
    batch: int
    cost: float
    rates: Mapping[str, float]
    best: int
    over_best: float
    over_plain: float


def jumps(offset: int) -> Acceptance:
    """0.9 and 0.1 in turn, every 64 tokens."""
    return lambda request, position: (0.9, 0.1)[(position // 64 + offset) % 2]


def by_prompt(prompts: Sequence[Sequence[int]], kinds: Sequence[Acceptance]) -> Acceptance:
    """The kinds in turn, prompt by prompt."""
    kind_of = {tuple(prompt): kinds[i % len(kinds)] for i, prompt in enumerate(prompts)}

    def acceptance(request: Request, position: int) -> float:
        return kind_of[tuple(request.tokens[: request.prompt_length])](request, position)

    return acceptance


def measure(
    bench: Bench,
    name: str,
    prompts: Sequence[Sequence[int]],
    step: float,
    cost: float,
    kinds: Sequence[Acceptance],
    args: argparse.Namespace,
) -> Cell:
    """One cell. step: seconds of the target alone for one step of these prompts."""
    drafter = bench.drafter(by_prompt(prompts, kinds), cost, len(prompts), step)
    chain = Chain([drafter])
    policies: dict[str, LengthPolicy] = {str(n): FixedLength(n, 1) for n in LENGTHS}
    policies["auto"] = bench.auto(drafter)
    bench.decode(chain, policies["auto"], prompts, TOKENS, seconds=args.seconds)
    rates: dict[str, list[float]] = {name: [] for name in policies}
    names = list(policies)
    for number in range(args.rounds):
        if number == 1:
            first = sorted(map(str, LENGTHS), key=lambda n: -rates[n][0])
            names = [*dict.fromkeys([*first[:GO_ON], "0", "auto"])]
        for name_ in random.sample(names, len(names)):
            decoded = bench.decode(chain, policies[name_], prompts, TOKENS, seconds=args.seconds)
            bench.check(prompts, decoded)
            rates[name_].append(decoded.rate)

    def ratio(n: str) -> float:
        return median(auto / fixed for auto, fixed in zip(rates["auto"], rates[n], strict=True))

    best = min((n for n in names if n != "auto"), key=ratio)
    return Cell(
        format=name.split()[0],
        acceptance=name.split()[1],
        batch=len(prompts),
        cost=cost,
        rates={n: median(values) for n, values in rates.items()},
        best=int(best),
        over_best=ratio(best),
        over_plain=ratio("0"),
    )


def cells(args: argparse.Namespace, folder: Path) -> list[Cell]:
    """All cells, each told on stderr as it is done."""
    done = []
    costs = [float(c) for c in args.cost.split(",")]
    kinds: dict[str, list[Acceptance]] = {a: [always(float(a))] for a in args.acceptance.split(",")}
    batches = [int(b) for b in args.batch.split(",")]
    if args.changing:
        kinds = {
            "jumps": [jumps(0)],
            "jumps-apart": [jumps(0), jumps(1)],
            "mixed": [always(0.9), always(0.1)],
        }
    for format in args.formats.split(","):
        llm = in_format(format, folder)
        bench = Bench(llm.engine)
        for batch in batches:
            prompts = questions(llm, batch)
            step = bench.record(prompts, TOKENS)
            for (name, kind), cost in product(kinds.items(), costs):
                if batch < len(kind):
                    continue
                cell = measure(bench, f"{format} {name}", prompts, step, cost, kind, args)
                sys.stderr.write(_line(cell))
                done.append(cell)
    return done


def _line(cell: Cell) -> str:
    return (
        f"{cell.format:5} {cell.acceptance:>12} {cell.batch:5d} {cell.cost:5.2f}  {cell.rates['0']:7.0f} "
        f"{cell.best:4d} {cell.rates[str(cell.best)]:7.0f} {cell.rates['auto']:7.0f} {cell.over_best:9.3f} "
        f"{cell.over_plain:10.3f}\n"
    )


HEADING = "format  acceptance batch  cost    plain best    rate    auto over best over plain\n"


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Auto over the best fixed length and over plain decoding, by acceptance; a panel a format and cost."""
    from matplotlib.figure import Figure

    panels = sorted({(cell.format, cell.cost) for cell in cells})
    figure = Figure(figsize=(3.4 * len(panels), 6.4), layout="constrained")
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for (top, bottom), (format, cost) in zip(grid.T, panels, strict=True):
        for batch in sorted({cell.batch for cell in cells}):
            line = [c for c in cells if (c.format, c.cost, c.batch) == (format, cost, batch)]
            x = [float(c.acceptance) for c in line]
            top.plot(x, [c.over_plain for c in line], marker="o", label=f"batch {batch}")
            bottom.plot(x, [c.over_best for c in line], marker="o")
        top.axhline(1, color="grey", linewidth=0.8)
        bottom.axhline(1, color="grey", linewidth=0.8)
        top.set_title(f"{format}, draft cost {cost:g}")
        bottom.set_xlabel("acceptance rate")
    grid[0, 0].set_ylabel("auto over target-only")
    grid[1, 0].set_ylabel("auto over the best fixed length")
    grid[0, 0].legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help=f"the grid {FULL}: hours")
    parser.add_argument("--formats", default="int8,bf16", help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--acceptance", default="0,0.4,0.8,0.95")
    parser.add_argument("--batch", default="1,4,16")
    parser.add_argument("--cost", default="0.02,0.3", help="of a draft step, in target steps")
    parser.add_argument("--changing", action="store_true", help="acceptance that changes, instead")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    if args.full:
        vars(args).update(FULL)
    random.seed(0)
    sys.stderr.write(HEADING)
    with cache_folder(args.cache) as folder:
        done = cells(args, folder)
    sys.stdout.write(HEADING + "".join(map(_line, done)))
    over_best = sorted(cell.over_best for cell in done)
    worst = min(cell.over_plain for cell in done)
    sys.stdout.write(
        f"auto over the best fixed length: median {median(over_best):.3f}, worst {over_best[0]:.3f}; "
        f"over target-only: worst {worst:.3f}\n"
    )
    if args.json:
        args.json.write_text(json.dumps([asdict(cell) for cell in done], indent=1))
    if args.picture:
        draw(done, args.picture)


if __name__ == "__main__":
    main()
