"""Results of measurements, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from outrider.cli.columns import Column, print_columns
from outrider.cli.console import say
from outrider.cli.options import one_or_list
from outrider.measurement.bench import Result

if TYPE_CHECKING:
    from outrider.llm import LLM

POSITIONS = 6  # of a draft that a table has room for; the JSON has all


def conditions(
    llm: LLM, model: str, drafters: list[str], *, max_tokens: int, rounds: int, prompts: Path | None
) -> dict[str, Any]:
    """The head of a measurement's JSON: what was measured, and how."""
    settings: dict[str, Any] = llm.config.model_dump(exclude={"model"})
    settings |= {"max_tokens": max_tokens, "rounds": rounds, "prompts": str(prompts or "built-in")}
    settings["max_model_len"] = llm.about.max_model_len
    return {
        "model": model,
        "speculative_model": one_or_list(drafters),
        "device": llm.about.device,
        "settings": settings,
    }


def print_results(
    console: Console, results: Sequence[Result], *, latency: bool = False, verbose: bool = False
) -> None:
    """One row a batch size and category. latency: with times to the first and between tokens; verbose: with
    what is known of drafts."""
    rows = [result.as_json() for result in results]
    plain, speculative = ([row[side] for row in rows] for side in ("target_only", "speculative"))

    def times(key: str) -> list[str]:
        return [f"{a[key]:.0f} > {b[key]:.0f}" for a, b in zip(plain, speculative, strict=True)]

    columns = [
        Column("target", [f"{each['tokens_per_s']:.1f}" for each in plain]),
        Column("speculative", [f"{each['tokens_per_s']:.1f}" for each in speculative]),
        Column("speed-up", [f"{row['speedup']:.2f}x" for row in rows]),
        Column("identical", [f"{result.identical}/{result.compared}" for result in results]),
    ]
    caption = "target, speculative: tokens/s without and with speculation"
    if latency:
        columns += [Column("TTFT", times("ttft_ms")), Column("ITL", times("itl_ms"))]
        caption += "; TTFT, ITL: ms to the first token and between tokens"
    if verbose:
        by_position = [s["acceptance_rate_by_position"][:POSITIONS] for s in speculative]
        shares = [" ".join(f"{100 * r:.0f}" for r in rates) for rates in by_position]
        columns += [
            Column("acceptance length", [f"{each['acceptance_length']:.2f}" for each in speculative]),
            Column("acceptance by position", shares, "left"),
        ]
        caption += f"; acceptance by draft position, up to {POSITIONS}, in %"
    print_columns(console, _keys(results), columns, caption=caption)


def print_headline(console: Console, results: Sequence[Result]) -> None:
    """What came out, in a sentence a batch size: the speed-up of all, how many outputs are identical, and the
    categories that speculation made slower."""
    sizes = list(dict.fromkeys(result.batch_size for result in results))
    for size in sizes:
        total, *categories = (result for result in results if result.batch_size == size)
        batch = f"batch {size}: " if len(sizes) > 1 else ""
        said = f"{batch}{_compared(total)}, {total.identical}/{total.compared} identical"
        lost = [f"{each.category} {_compared(each)}" for each in categories if round(each.speedup, 2) < 1]
        say(console, "; ".join([said, *lost]), "bold")


def _compared(result: Result) -> str:
    """A speed-up of two digits, and what it means."""
    speedup = round(result.speedup, 2)
    return f"{speedup:.2f}x" + (" faster" if speedup > 1 else ": slower" if speedup < 1 else ": as fast")


def print_expenses(console: Console, results: Sequence[Result], price_per_hour: float | None) -> None:
    """What tokens cost and consume, target-only and speculative: one row a batch size and category."""
    rows = [result.as_json(price_per_hour) for result in results]
    columns = [
        Column(heading, [_or_dash(row[side][key]) for row in rows])
        for name, key in (("cost", "cost_per_million_tokens"), ("energy", "joules_per_token"))
        for heading, side in ((name, "target_only"), ("with speculation", "speculative"))
    ]
    caption = "cost of a million output tokens in the price's currency; energy in joules a token"
    print_columns(console, _keys(results), columns, caption=caption)


def _keys(results: Sequence[Result]) -> tuple[Column, Column]:
    return (
        Column("batch", [str(result.batch_size) for result in results]),
        Column("category", [result.category for result in results], "left"),
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
