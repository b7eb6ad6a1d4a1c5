"""Results of measurements, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from outrider.cli.options import one_or_list
from outrider.llm import LLM
from outrider.measurement.bench import Result

POSITIONS = 6  # of a draft that a table has room for; the JSON has all


def conditions(
    llm: LLM, model: str, drafters: list[str], *, max_tokens: int, rounds: int, prompts: Path | None
) -> dict[str, Any]:
    """The head of a measurement's JSON: what was measured, and how."""
    settings: dict[str, Any] = llm.config.model_dump(exclude={"model"})
    settings |= {"max_tokens": max_tokens, "rounds": rounds, "prompts": str(prompts or "built-in")}
    settings["max_model_len"] = llm.engine.max_model_len
    return {
        "model": model,
        "speculative_model": one_or_list(drafters),
        "device": str(llm.engine.target.model.backend.device),
        "settings": settings,
    }


def results_table(results: Sequence[Result], *, latency: bool) -> Table:
    """One row a batch size and category; latency: with times to the first and between tokens."""
    table = Table(
        caption=f"rates in tokens/s, times in ms, acceptance by draft position, up to {POSITIONS}, in %"
    )
    for heading in ("batch", "category", "target", "speculative", "speed-up"):
        table.add_column(heading, justify="left" if heading == "category" else "right", no_wrap=True)
    if latency:
        table.add_column("TTFT", justify="right")
        table.add_column("ITL", justify="right")
    table.add_column("acceptance length", justify="right")
    table.add_column("acceptance by position", no_wrap=True)
    table.add_column("identical", justify="right")
    for result in results:
        row = result.as_json()
        plain, speculative = row["target_only"], row["speculative"]
        times = [f"{plain[t]:.0f} > {speculative[t]:.0f}" for t in ("ttft_ms", "itl_ms")] if latency else []
        table.add_row(
            str(result.batch_size),
            result.category,
            f"{plain['tokens_per_s']:.1f}",
            f"{speculative['tokens_per_s']:.1f}",
            f"{row['speedup']:.2f}x",
            *times,
            f"{speculative['acceptance_length']:.2f}",
            " ".join(f"{100 * rate:.0f}" for rate in speculative["acceptance_rate_by_position"][:POSITIONS]),
            f"{result.identical}/{result.compared}",
        )
    return table


def expenses_table(results: Sequence[Result], price_per_hour: float | None) -> Table:
    """What tokens cost and consume, target-only and speculative: one row a batch size and category."""
    table = Table(caption="cost of a million output tokens in the price's currency; energy in joules a token")
    for heading in ("batch", "category", "cost", "with speculation", "energy", "with speculation"):
        table.add_column(heading, justify="left" if heading == "category" else "right", no_wrap=True)
    for result in results:
        row = result.as_json(price_per_hour)
        sides = [row["target_only"], row["speculative"]]
        table.add_row(
            str(result.batch_size),
            result.category,
            *(_or_dash(side["cost_per_million_tokens"]) for side in sides),
            *(_or_dash(side["joules_per_token"]) for side in sides),
        )
    return table


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
