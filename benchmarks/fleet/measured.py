"""What was measured of one model on one machine, as a file that the simulation reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from outrider.drafting.costs import DraftCost, TargetCost

FOLDER = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Machine:
    """Where, when and how it was measured."""

    cpu: str
    cores: int
    threads: int
    date: str
    revision: str
    command: str


@dataclass(frozen=True)
class Steps:
    """A pass of the target over `counts` rows takes `seconds`; the rest is as `TargetCost` has it.

    max_num_seqs, prompt_rows, max_rows: what the engine's scheduler keeps to.
    """

    counts: tuple[int, ...]
    seconds: tuple[float, ...]
    position: float
    position_row: float
    request: float
    max_num_seqs: int
    prompt_rows: int
    max_rows: int

    def target(self) -> TargetCost:
        return TargetCost(
            self.counts,
            self.seconds,
            position=self.position,
            position_row=self.position_row,
            request=self.request,
        )


@dataclass(frozen=True)
class Drafting:
    """What a drafter costs, and what it offers to a request that decodes.

    offered, stood: the shares of steps in which a token at this position of the draft was drafted, and stood.
    """

    drafter: str
    fixed: float
    each: float
    first: float
    offered: tuple[float, ...]
    stood: tuple[float, ...]

    def cost(self) -> DraftCost:
        return DraftCost(self.fixed, self.each, self.first)


@dataclass(frozen=True)
class Latencies:
    """How long requests took that arrived one by one. Seconds; ITL is the time between two steps that gave a
    request tokens, and TPOT a request's time from its first token to its last, over the tokens between."""

    tokens_per_second: float
    ttft_mean: float
    ttft_p50: float
    ttft_p99: float
    itl_mean: float
    itl_p50: float
    itl_p99: float
    tpot_mean: float


def latencies(
    tokens_per_second: float, first: Sequence[float], gaps: Sequence[float], each: Sequence[float]
) -> Latencies:
    """What is told of times to a first token, times between two steps of a request, and requests' TPOT."""
    first_p50, first_p99 = np.quantile(first, (0.5, 0.99)).tolist()
    gap_p50, gap_p99 = np.quantile(gaps, (0.5, 0.99)).tolist()
    return Latencies(
        tokens_per_second=tokens_per_second,
        ttft_mean=float(np.mean(first)),
        ttft_p50=first_p50,
        ttft_p99=first_p99,
        itl_mean=float(np.mean(gaps)),
        itl_p50=gap_p50,
        itl_p99=gap_p99,
        tpot_mean=float(np.mean(each)),
    )


@dataclass(frozen=True)
class Check:
    """What the real engine did with a Poisson stream, for the simulation to be compared with.

    times: of arrivals, seconds; prompts: their lengths in tokens; tokens: of each answer.
    """

    times: tuple[float, ...]
    prompts: tuple[int, ...]
    tokens: int
    plain: Latencies
    auto: Latencies


@dataclass(frozen=True)
class Measured:
    """model: its name in tables."""

    model: str
    machine: Machine
    steps: Steps
    drafting: Drafting
    check: Check


def read(path: Path) -> Measured:
    return TypeAdapter(Measured).validate_json(path.read_text(encoding="utf-8"))


def write(path: Path, measured: Measured) -> None:
    path.write_text(json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def known() -> Sequence[str]:
    """Names of files that were measured, without the folder and the ending."""
    return sorted(path.stem.removeprefix("fleet-") for path in FOLDER.glob("fleet-*.json"))


def path_of(name: str) -> Path:
    return FOLDER / f"fleet-{name}.json"
