"""A fleet on paper: what it costs and how long it lets one wait, by load, drafts, router and size.

python -m benchmarks.fleet [--measured smollm2] [--replicas 10,100,1000] [--loads 0.3,0.5,0.7,0.9]
                           [--lengths 0,3,auto] [--routers "round robin,prefix-aware"] [--price 0.08]
                           [--idle-watts 8] [--busy-watts 25] [--seconds 40] [--picture FILE] [--json]
python -m benchmarks.fleet --check

Every combination is simulated. A load is a share of what replicas can answer without drafts and without
anything cached. Price and power are assumptions: an hour of a replica in a currency of one's choice, and the
watts of a replica that waits and of one that computes. --check replays the stream that the real engine
answered when the file was measured, and prints both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.fleet.costs import Auto, Costs, Fixed, Length
from benchmarks.fleet.measured import Latencies, Measured, known, path_of, read
from benchmarks.fleet.routers import ROUTERS, RoundRobin
from benchmarks.fleet.simulate import Fleet, Seen, conversations, run
from benchmarks.fleet.workload import Request, Workload

WARM_UP = 0.5  # of the time in which conversations begin: caches fill


@dataclass(frozen=True)
class Prices:
    """What a replica takes: money an hour, and watts while it waits and while it computes."""

    price: float
    idle_watts: float
    busy_watts: float

    def money(self, replicas: int, seen: Seen) -> float:
        """A million tokens."""
        return replicas * self.price / 3600 / seen.tokens_per_second * 1e6

    def kilowatt_hours(self, replicas: int, seen: Seen) -> float:
        """A million tokens."""
        watts = self.idle_watts + (self.busy_watts - self.idle_watts) * min(1.0, seen.busy)
        return replicas * watts / seen.tokens_per_second * 1e6 / 3.6e6


@dataclass(frozen=True)
class Row:
    """One fleet. money, kilowatt_hours: a million tokens that were written."""

    replicas: int
    load: float
    drafts: str
    router: str
    seen: Seen
    money: float
    kilowatt_hours: float


def length_of(name: str, costs: Costs) -> Length:
    return Auto(costs) if name == "auto" else Fixed(int(name))


def rows(measured: Measured, args: argparse.Namespace) -> list[Row]:
    """Every combination, in the order in which it is named."""
    costs, workload = Costs(measured.steps, measured.drafting), workload_of(args)
    prices = Prices(args.price, args.idle_watts, args.busy_watts)
    capacity, found = costs.capacity(workload), []
    for count in args.replicas:
        for load in args.loads:
            for drafts in args.lengths:
                for router in args.routers:
                    fleet = Fleet(costs, length_of(drafts, costs), ROUTERS[router], count, args.cache_tokens)
                    ran = conversations(fleet, workload, load * capacity * count, args.seconds, args.seed)
                    seen = ran.seen(WARM_UP * args.seconds, args.seconds)
                    money, energy = prices.money(count, seen), prices.kilowatt_hours(count, seen)
                    found.append(Row(count, load, drafts, router, seen, money, energy))
                    sys.stderr.write(f"{count} replicas, load {load}, drafts {drafts}, {router}\n")
    return found


def workload_of(args: argparse.Namespace) -> Workload:
    return Workload(args.turns, args.prompt, args.question, args.answer, think=args.think)


def replay(measured: Measured, drafts: str) -> Latencies:
    """The stream that was measured, in one simulated replica without a cache of prefixes."""
    costs, check = Costs(measured.steps, measured.drafting), measured.check
    fleet = Fleet(costs, length_of(drafts, costs), RoundRobin, 1, cache_tokens=0)
    numbered = enumerate(zip(check.times, check.prompts, strict=True))
    requests = [Request(number, 0, prompt, check.tokens, at) for number, (at, prompt) in numbered]
    ran = run(fleet, requests, lambda last: None, np.random.default_rng(0))
    seen = ran.seen(0.0, ran.end)
    rate = sum(request.written for request in ran.requests) / (ran.end - check.times[0])
    fields = {name: getattr(seen, name) for name in Latencies.__dataclass_fields__}
    return Latencies(**fields | {"tokens_per_second": rate})


def checked(measured: Measured) -> str:
    """The engine beside the simulation, as a table."""
    lines = [f"{'':14}{'engine':>10}{'simulated':>10}{'off':>8}"]
    for drafts, engine in (("0", measured.check.plain), ("auto", measured.check.auto)):
        lines.append(f"drafts {drafts}")
        for name, value in asdict(engine).items():
            simulated = asdict(replay(measured, drafts))[name]
            scale = 1.0 if name.startswith("tokens") else 1e3
            label = name.replace("tokens_per_second", "tokens/s")
            lines.append(
                f"{label:14}{value * scale:10.1f}{simulated * scale:10.1f}{simulated / value - 1:+8.0%}"
            )
    return "\n".join(lines) + "\n"


def table(found: Sequence[Row]) -> str:
    """Milliseconds, and money and kWh a million tokens."""
    names = ("replicas", "load", "drafts", "router", "tok/s", "busy", "cached", "length")
    times = ("TTFT p50", "p99", "ITL p99", "TPOT", "money", "kWh")
    lines = [("{:>8}{:>6}{:>7}  {:13}{:>9}{:>6}{:>7}{:>7}" + "{:>9}" * 6).format(*names, *times)]
    for row in found:
        seen = row.seen
        head = f"{row.replicas:8}{row.load:6.2f}{row.drafts:>7}  {row.router:13}{seen.tokens_per_second:9.0f}"
        shares = f"{seen.busy:6.0%}{seen.cached:7.0%}{seen.length:7.2f}"
        seconds = (seen.ttft_p50, seen.ttft_p99, seen.itl_p99, seen.tpot_mean)
        latencies = "".join(f"{1e3 * value:9.1f}" for value in seconds)
        lines.append(f"{head}{shares}{latencies}{row.money:9.3f}{row.kilowatt_hours:9.3f}")
    return "\n".join(lines) + "\n"


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    usual = Workload()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--measured", default="smollm2", choices=known())
    parser.add_argument("--replicas", type=lambda text: [*map(int, names(text))], default=[10, 100])
    parser.add_argument("--loads", type=lambda text: [*map(float, names(text))], default=[0.3, 0.6, 0.9])
    parser.add_argument("--lengths", type=names, default=["0", "3", "auto"], help="tokens of drafts")
    parser.add_argument("--routers", type=names, default=[*ROUTERS], help=", ".join(ROUTERS))
    parser.add_argument("--price", type=float, default=0.08, help="of a replica, an hour")
    parser.add_argument("--idle-watts", type=float, default=8.0)
    parser.add_argument("--busy-watts", type=float, default=25.0)
    parser.add_argument("--turns", type=int, default=usual.turns, help="of a conversation")
    parser.add_argument("--prompt", type=int, default=usual.prompt, help="tokens of the first turn")
    parser.add_argument("--question", type=int, default=usual.question, help="tokens of each other turn")
    parser.add_argument("--answer", type=int, default=usual.answer, help="tokens on average")
    parser.add_argument("--think", type=float, default=usual.think, help="seconds between turns")
    parser.add_argument("--cache-tokens", type=int, default=65536, help="that a replica keeps")
    parser.add_argument("--seconds", type=float, default=40.0, help="in which conversations begin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="file to draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="compare with the real engine")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.routers if name not in ROUTERS]:
        parser.error(f"--routers: {unknown[0]!r} is not known; known are {', '.join(ROUTERS)}")
    most = len(read(path_of(args.measured)).drafting.stood)
    for name in args.lengths:
        if name != "auto" and not (name.isdigit() and int(name) <= most):
            parser.error(f"--lengths: {name!r} is neither 'auto' nor from 0 to {most}")
    return args


def main() -> None:
    args = parsed()
    measured = read(path_of(args.measured))
    if args.check:
        sys.stdout.write(checked(measured))
        return
    found = rows(measured, args)
    if args.picture:
        from benchmarks.fleet.picture import draw

        largest = [row for row in found if row.replicas == max(args.replicas)]
        lines = [
            (drafts, router, [(r.load, r.seen) for r in largest if (r.drafts, r.router) == (drafts, router)])
            for drafts, router in dict.fromkeys((row.drafts, row.router) for row in largest)
        ]
        draw(lines, f"{max(args.replicas)} replicas of {measured.model}", args.picture)
    if args.json:
        json.dump([asdict(row) for row in found], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
